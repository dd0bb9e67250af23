module sealclient

go 1.23.0

require (
	github.com/BurntSushi/toml v1.5.0
	google.golang.org/genproto/googleapis/rpc v0.0.0-20250528174236-200df99c418a
	google.golang.org/grpc v1.74.2
	google.golang.org/protobuf v1.36.6
)
