// Learns documents, watches the run until it ends, and asks an alias a question:
//
//	learn CONFIG ALIAS QUESTION DOCUMENT...
//
// CONFIG is a run's config in TOML: sealkit/data/learn.toml with the alias that learns as `gate.alias`.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/BurntSushi/toml"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	controllerv1 "sealclient/gen/seal/controller/v1"
	typev1 "sealclient/gen/seal/type/v1"
)

func main() {
	if len(os.Args) < 5 {
		fmt.Fprintln(os.Stderr, "usage: learn CONFIG ALIAS QUESTION DOCUMENT...")
		os.Exit(2)
	}
	alias, ctx := os.Args[2], context.Background()
	connection, err := connect()
	check(err)
	controller := controllerv1.NewControllerServiceClient(connection)

	check(listAliases(ctx, controller))
	run, err := learn(ctx, controller, os.Args[1], os.Args[4:])
	check(err)
	check(watch(ctx, controller, run))
	check(report(ctx, controller, run))
	check(ask(ctx, controller, alias, os.Args[3]))
}

// listAliases prints every alias with the policy that it points to.
func listAliases(ctx context.Context, controller controllerv1.ControllerServiceClient) error {
	for request := new(controllerv1.ListAliasesRequest); ; {
		page, err := controller.ListAliases(ctx, request)
		if err != nil {
			return err
		}
		for _, alias := range page.Aliases {
			fmt.Println(alias.Name, alias.Policy)
		}
		if request.PageToken = page.NextPageToken; request.PageToken == "" {
			return nil
		}
	}
}

// learn starts a run that learns the documents, and returns its name. A request of more than 64 MiB is sent with
// CreateRunInParts instead.
func learn(
	ctx context.Context, controller controllerv1.ControllerServiceClient, config string, files []string,
) (string, error) {
	keys := map[string]interface{}{}
	if _, err := toml.DecodeFile(config, &keys); err != nil {
		return "", err
	}
	sent, err := structpb.NewStruct(keys)
	if err != nil {
		return "", err
	}
	id := make([]byte, 16) // the same id again returns the same run, so a call that failed can be repeated
	if _, err := rand.Read(id); err != nil {
		return "", err
	}
	request := &controllerv1.CreateRunRequest{RequestId: fmt.Sprintf("%x", id), Config: sent}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		request.Documents = append(request.Documents, &controllerv1.Document{Name: file, Content: content})
	}
	created, err := controller.CreateRun(ctx, request)
	return created.GetRun().GetName(), err
}

// watch prints the events of the run to its end. After a broken stream it continues after the last event; it gives up
// after ten attempts in a row without an event. It returns the run's own error if the run did not succeed.
func watch(ctx context.Context, controller controllerv1.ControllerServiceClient, run string) error {
	request, attempts := &controllerv1.WatchRunRequest{Name: run}, 0
	for {
		stream, err := controller.WatchRun(ctx, request)
		for err == nil {
			var response *controllerv1.WatchRunResponse
			if response, err = stream.Recv(); err != nil {
				break
			}
			event := response.Event
			request.Cursor, attempts = event.Cursor, 0
			fmt.Println(run, event.Cursor, event.GetProgress().GetStage())
			switch changed := event.GetRunStateChanged(); changed.GetState() {
			case controllerv1.RunState_RUN_STATE_SUCCEEDED:
				return nil
			case controllerv1.RunState_RUN_STATE_FAILED, controllerv1.RunState_RUN_STATE_CANCELLED,
				controllerv1.RunState_RUN_STATE_PAUSED:
				if changed.Error != nil {
					return status.ErrorProto(changed.Error)
				}
				return fmt.Errorf("%s ended as %s", run, changed.State)
			}
		}
		if errors.Is(err, io.EOF) {
			err = status.Error(codes.Unavailable, "the stream ended before the run")
		}
		if attempts++; attempts > 10 || status.Code(err) != codes.Unavailable {
			return err
		}
		time.Sleep(time.Second)
	}
}

// report prints what became of each document.
func report(ctx context.Context, controller controllerv1.ControllerServiceClient, run string) error {
	found, err := controller.GetRunReport(ctx, &controllerv1.GetRunReportRequest{Name: run})
	for _, document := range found.GetReport().GetDocuments() {
		fmt.Println(document.Name, document.State, document.Reason)
	}
	return err
}

// ask prints the alias's answer as it is sampled.
func ask(ctx context.Context, controller controllerv1.ControllerServiceClient, alias, question string) error {
	stream, err := controller.Answer(ctx, &controllerv1.AnswerRequest{
		Alias:    "aliases/" + alias,
		Prompt:   &typev1.Prompt{User: question},
		Sampling: &typev1.Sampling{Temperature: 0, TopP: 1, MaxTokens: 64},
	})
	for err == nil {
		var response *controllerv1.AnswerResponse
		if response, err = stream.Recv(); err == nil {
			fmt.Print(response.GetDelta().GetText())
		}
	}
	fmt.Println()
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
