package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/encoding/protowire"
)

const watchTasks = "/sojourn.v1.Validation/WatchTasks"

// bytesCodec leaves messages as they are on the wire, so that no generated code is needed.
type bytesCodec struct{}

func (bytesCodec) Name() string { return "proto" }

func (bytesCodec) Marshal(message any) ([]byte, error) { return *message.(*[]byte), nil }

func (bytesCodec) Unmarshal(data []byte, message any) error {
	*message.(*[]byte) = append([]byte(nil), data...)
	return nil
}

// runTasks follows the feed of live tasks of an agent on another machine: plain grpc-go,
// with the TLS configuration that go-spiffe makes.
func runTasks(arguments []string) error {
	flags, timeout := newFlags("tasks")
	address := flags.String("addr", "", "the agent's address (required)")
	peer := flags.String("peer", "", "the SPIFFE ID that the agent must have (required)")
	audience := flags.String("audience", "", "whose tasks to watch (required)")
	updates := flags.Int("updates", 1, "how many messages that are no heartbeats to print")
	if err := parse(flags, arguments); err != nil {
		return err
	}
	if *address == "" || *audience == "" {
		return errors.New("-addr and -audience are required")
	}
	id, err := spiffeid.FromString(*peer)
	if err != nil {
		return fmt.Errorf("-peer: %w", err)
	}
	source, err := newX509Source(*timeout)
	if err != nil {
		return err
	}
	defer source.Close()
	tls := credentials.NewTLS(tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(id)))
	connection, err := grpc.NewClient(
		*address, grpc.WithTransportCredentials(tls), grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{})),
	)
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, watchTasks)
	if err != nil {
		return err
	}
	request := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), *audience)
	if err := stream.SendMsg(&request); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for n := 0; n < *updates; {
		var message []byte
		if err := stream.RecvMsg(&message); err != nil {
			return err
		}
		line, news, err := feedLine(message)
		if err != nil {
			return err
		}
		if news {
			emit("feed", line)
			n++
		}
	}
	return nil
}

// feedLine reads a sojourn.v1.TaskFeed, and tells whether it is more than a heartbeat.
func feedLine(message []byte) (fields, bool, error) {
	line, news := fields{"tasks": []fields{}}, false
	err := eachField(message, func(number protowire.Number, value uint64, inner []byte) error {
		switch number {
		case 1, 2:
			news = true
			line["kind"] = map[protowire.Number]string{1: "snapshot", 2: "delta"}[number]
			return eachField(inner, func(_ protowire.Number, _ uint64, task []byte) error {
				state := fields{"live": false}
				line["tasks"] = append(line["tasks"].([]fields), state)
				return eachField(task, func(number protowire.Number, value uint64, inner []byte) error {
					switch number {
					case 1:
						state["id"] = string(inner)
					case 3:
						state["live"] = value == 1
					case 4:
						state["reason"] = string(inner)
					}
					return nil
				})
			})
		case 4:
			line["epoch"] = value
		}
		return nil
	})
	return line, news, err
}

// eachField calls do with each varint or bytes field of a message.
func eachField(message []byte, do func(protowire.Number, uint64, []byte) error) error {
	for len(message) > 0 {
		number, kind, size := protowire.ConsumeTag(message)
		if size < 0 {
			return protowire.ParseError(size)
		}
		message = message[size:]
		var value uint64
		var inner []byte
		switch kind {
		case protowire.VarintType:
			value, size = protowire.ConsumeVarint(message)
		case protowire.BytesType:
			inner, size = protowire.ConsumeBytes(message)
		default:
			size = protowire.ConsumeFieldValue(number, kind, message)
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		message = message[size:]
		if err := do(number, value, inner); err != nil {
			return err
		}
	}
	return nil
}
