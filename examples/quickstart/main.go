// Command quickstart is the smallest service there is, and one that calls it:
//
//	quickstart serve
//	quickstart call Ada
//
// Both read TELFORD_SERVER and TELFORD_KEY. It owns no goroutines beside those of its
// service, which end with it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"telford.dev/telford"
)

// Greeting is both question and answer.
type Greeting struct {
	Text string `json:"text"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 1 && args[0] == "serve":
		err = serve(ctx)
	case len(args) == 2 && args[0] == "call":
		err = call(ctx, args[1])
	default:
		fmt.Fprintln(os.Stderr, "usage: quickstart serve | quickstart call NAME")
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context) error {
	svc, err := telford.New("greeter", telford.FromEnv())
	if err != nil {
		return err
	}
	err = telford.Handle(svc, "greet", func(_ context.Context, in *Greeting) (*Greeting, error) {
		return &Greeting{Text: "Hello, " + in.Text}, nil
	})
	if err != nil {
		return err
	}
	if err := svc.Start(ctx); err != nil {
		return err
	}
	fmt.Println("serving as", svc.Identity().Instance)
	<-ctx.Done()
	return stop(ctx, svc)
}

func call(ctx context.Context, name string) error {
	svc, err := telford.New("visitor", telford.FromEnv(), telford.CallerOnly())
	if err != nil {
		return err
	}
	if err := svc.Start(ctx); err != nil {
		return err
	}
	out, err := telford.Call[Greeting](ctx, svc, "greeter", "greet", &Greeting{Text: name})
	if err != nil {
		return err
	}
	fmt.Println(out.Text)
	return stop(ctx, svc)
}

// stop drains: calls under way finish, for ten seconds at most.
func stop(ctx context.Context, svc *telford.Service) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return svc.Stop(ctx)
}
