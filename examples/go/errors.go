package main

import (
	"fmt"
	"os"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
)

// check ends the process with exit code 1 if err is an error. Of one that a call returned it prints the details: the
// stable reason with its metadata, every faulty field or used up quota, and after how long to try again.
func check(err error) {
	if err == nil {
		return
	}
	failed, isStatus := status.FromError(err)
	if !isStatus {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintf(os.Stderr, "%s: %s\n", failed.Code(), failed.Message())
	for _, detail := range failed.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			fmt.Fprintf(os.Stderr, "reason %s\n", detail.Reason)
			for key, value := range detail.Metadata {
				fmt.Fprintf(os.Stderr, "%s %s\n", key, value)
			}
		case *errdetails.BadRequest:
			for _, violation := range detail.FieldViolations {
				fmt.Fprintf(os.Stderr, "field %s: %s\n", violation.Field, violation.Description)
			}
		case *errdetails.QuotaFailure:
			for _, violation := range detail.Violations {
				fmt.Fprintf(os.Stderr, "quota %s: %s\n", violation.Subject, violation.Description)
			}
		case *errdetails.RetryInfo:
			fmt.Fprintf(os.Stderr, "try again after %s\n", detail.RetryDelay.AsDuration())
		}
	}
	os.Exit(1)
}
