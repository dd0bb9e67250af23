package main

import (
	"context"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/local"
)

// connect returns a connection to the controller at SEAL_ADDRESS. With SEAL_TLS_CA, the file of the authority that
// signed the controller's certificate, it uses TLS, and sends the bearer token in the file SEAL_TOKEN_FILE.
func connect() (*grpc.ClientConn, error) {
	address, ca, tokenFile := os.Getenv("SEAL_ADDRESS"), os.Getenv("SEAL_TLS_CA"), os.Getenv("SEAL_TOKEN_FILE")
	if address == "" {
		address = "127.0.0.1:50050"
	}
	if ca == "" { // only to a controller on this machine
		return grpc.Dial(address, grpc.WithTransportCredentials(local.NewCredentials()))
	}
	trusted, err := credentials.NewClientTLSFromFile(ca, "")
	if err != nil {
		return nil, err
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(trusted)}
	if tokenFile != "" {
		token, err := os.ReadFile(tokenFile)
		if err != nil {
			return nil, err
		}
		options = append(options, grpc.WithPerRPCCredentials(bearer(strings.TrimSpace(string(token)))))
	}
	return grpc.Dial(address, options...)
}

// bearer is a token that is sent with every call, and only over TLS.
type bearer string

func (token bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(token)}, nil
}

func (token bearer) RequireTransportSecurity() bool { return true }
