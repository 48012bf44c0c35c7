package main

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/runtime/protoimpl"
)

// codec takes the place of the one in Debian's grpc-go 1.33, which is built on an older protobuf than protoc-gen-go
// writes for; it takes messages of both. Newer releases of grpc-go need none.
type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(message interface{}) ([]byte, error) {
	return proto.Marshal(protoimpl.X.ProtoMessageV2Of(message))
}

func (codec) Unmarshal(data []byte, message interface{}) error {
	return proto.Unmarshal(data, protoimpl.X.ProtoMessageV2Of(message))
}

func init() { encoding.RegisterCodec(codec{}) }
