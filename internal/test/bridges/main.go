// Command bridges is what the configurations of examples/bridges are tested with: the engine that
// Bento grew out of, and an input with the name, the fields and the ways of Bento's nats_jetstream.
// Bento itself is not to be had from the Go module proxy that the tests use.
//
// It is a module of its own, so that what it needs is not what rollcall needs.
package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
)

func main() {
	spec := service.NewConfigSpec().Fields(service.NewStringListField("urls"),
		service.NewStringField("stream"), service.NewStringField("durable"),
		service.NewBoolField("bind"))
	err := service.RegisterInput("nats_jetstream", spec, newInput)
	if err != nil {
		panic(err)
	}
	service.RunCLI(context.Background())
}

// An input reads a durable pull consumer that is there already, one message at a time.
type input struct {
	urls, stream, durable string

	nc       *nats.Conn
	messages jetstream.MessagesContext
}

func newInput(c *service.ParsedConfig, _ *service.Resources) (service.Input, error) {
	urls, err := c.FieldStringList("urls")
	i := &input{urls: strings.Join(urls, ",")}
	var errStream, errDurable, errBind error
	i.stream, errStream = c.FieldString("stream")
	i.durable, errDurable = c.FieldString("durable")
	bind, errBind := c.FieldBool("bind")
	if err := errors.Join(err, errStream, errDurable, errBind); err != nil {
		return nil, err
	}
	if !bind {
		return nil, errors.New("bind is false, and this input makes no consumers")
	}
	return i, nil
}

// Connect connects, and finds the consumer.
func (i *input) Connect(ctx context.Context) (err error) {
	if i.nc, err = nats.Connect(i.urls, nats.MaxReconnects(-1)); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			i.nc.Close()
		}
	}()
	js, err := jetstream.New(i.nc)
	if err != nil {
		return err
	}
	consumer, err := js.Consumer(ctx, i.stream, i.durable)
	if err != nil {
		return fmt.Errorf("find consumer %s of %s: %w", i.durable, i.stream, err)
	}
	i.messages, err = consumer.Messages(jetstream.PullMaxMessages(1))
	return err
}

// Read returns the next message. It is acknowledged when the output has taken it.
func (i *input) Read(ctx context.Context) (*service.Message, service.AckFunc, error) {
	m, err := i.messages.Next(jetstream.NextContext(ctx))
	if err != nil {
		return nil, nil, err
	}
	message := service.NewMessage(m.Data())
	message.MetaSet("nats_subject", m.Subject())
	return message, func(_ context.Context, err error) error {
		if err != nil {
			return m.Nak()
		}
		return m.Ack()
	}, nil
}

// Close implements service.Input.
func (i *input) Close(context.Context) error {
	if i.messages != nil {
		i.messages.Stop()
	}
	if i.nc != nil {
		i.nc.Close()
	}
	return nil
}
