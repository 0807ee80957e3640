package main

import (
	"context"
	"errors"
	"net"
	"time"

	natsd "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"telford.dev/telford/bench/internal/measure"
)

func natsStacks() []stack {
	return []stack{{
		name: "nats", about: "NATS request/reply through nats-server, plaintext, one connection each",
		shared: "broker", serve: serveNATS, dial: dialNATS,
	}}
}

func runBroker(ctx context.Context) error {
	broker, err := natsd.NewServer(&natsd.Options{Host: "127.0.0.1", Port: natsd.RANDOM_PORT, NoSigs: true})
	if err != nil {
		return err
	}
	broker.Start()
	if !broker.ReadyForConnections(10 * time.Second) {
		return errors.New("nats-server was not ready within 10 s")
	}
	measure.Ready(broker.Addr().(*net.TCPAddr).String())
	<-ctx.Done()
	broker.Shutdown()
	broker.WaitForShutdown()
	return nil
}

func serveNATS(ctx context.Context, e env) error {
	conn, err := nats.Connect("nats://" + e.Shared)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Subscribe("echo", func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return err
	}
	measure.Ready("echo")
	<-ctx.Done()
	return nil
}

func dialNATS(_ context.Context, e env) (client, error) {
	conn, err := nats.Connect("nats://" + e.Shared)
	if err != nil {
		return client{}, err
	}
	return client{
		caller: func(int) (measure.Call, error) {
			body := payload(e.Size)
			return func(ctx context.Context) error {
				// A deadline is not asked of the peer, so none costs it anything.
				answer, err := conn.Request(e.Target, body, 30*time.Second)
				if err != nil {
					return errors.Join(err, ctx.Err())
				}
				return checkSize(len(answer.Data), e.Size)
			}, nil
		},
		close: conn.Close,
	}, nil
}
