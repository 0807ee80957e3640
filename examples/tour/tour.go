// Package tour holds the code of the guide to services in Go, a function for each
// thing to show, so that it compiles. It is not for running: nothing calls it. It
// starts no goroutines.
package tour

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"telford.dev/telford"
	shopv1 "telford.dev/telford/examples/shop/v1"
)

// Charge asks for money.
type Charge struct {
	Order       string `json:"order"`
	AmountCents int64  `json:"amount_cents"`
}

// Receipt says that money was taken.
type Receipt struct {
	Number string `json:"number"`
}

// Progress is one message of a stream.
type Progress struct {
	Percent int `json:"percent"`
}

// Make makes a service.
func Make(log *slog.Logger) (*telford.Service, error) {
	svc, err := telford.New("payments",
		telford.FromEnv(),            // TELFORD_SERVER and TELFORD_KEY
		telford.Version("1.4.0"),     // callers may ask for it
		telford.Tags("eu", "canary"), // operators find it by them
		telford.Locality("rack-7"),   // callers in the same one come first
		telford.Uses("ledger", "book"),
		telford.Logger(log),
	)
	return svc, err
}

// Serve adds handlers.
func Serve(svc *telford.Service) error {
	err := telford.Handle(svc, "charge", func(ctx context.Context, in *Charge) (*Receipt, error) {
		if in.AmountCents <= 0 {
			return nil, telford.Errorf(telford.CodeInvalidArgument, "amount_cents is %d and has to be positive", in.AmountCents)
		}
		call, _ := telford.InboundFrom(ctx)
		return &Receipt{Number: call.Caller.Service + "/" + in.Order}, nil
	}, telford.Description("Takes money for an order, once."))
	if err != nil {
		return err
	}
	return telford.HandleStream(svc, "export", func(ctx context.Context, _ *Charge, out *telford.Sender[Progress]) error {
		for percent := 10; percent <= 100; percent += 10 {
			if err := out.Send(&Progress{Percent: percent}); err != nil {
				return err // the caller has left
			}
		}
		return ctx.Err()
	})
}

// Stubs serves and calls what protoc has generated.
func Stubs(ctx context.Context, svc *telford.Service, impl shopv1.InventoryServer) error {
	shopv1.RegisterInventoryServer(svc, impl)

	orders := shopv1.NewOrdersClient(svc.Conn("orders"))
	order, err := orders.Get(ctx, &shopv1.GetRequest{Id: "A-10001"}, telford.Timeout(2*time.Second))
	if err != nil {
		return err
	}
	fmt.Println(order.GetState())
	return nil
}

// Calls calls plain handlers.
func Calls(ctx context.Context, svc *telford.Service) error {
	receipt, err := telford.Call[Receipt](ctx, svc, "payments", "charge", &Charge{Order: "o1", AmountCents: 1250})
	if err != nil {
		return err
	}
	fmt.Println(receipt.Number)

	for progress, err := range telford.Stream[Progress](ctx, svc, "payments", "export", &Charge{}) {
		if err != nil {
			return err
		}
		if progress.Percent >= 50 {
			break // ends the stream on both sides
		}
	}
	return nil
}

// Options says how one call is to go.
func Options(ctx context.Context, svc *telford.Service, in *Charge) (*Receipt, error) {
	return telford.Call[Receipt](ctx, svc, "payments", "charge", in,
		telford.Timeout(5*time.Second),
		telford.Transport(telford.Direct), // or Proxy; Auto takes what works
		telford.MaxAttempts(1),            // no retry
		telford.Header("tenant", "north"),
	)
}

// Careful makes a service that tries less often again than others, and gives up on an
// instance later.
func Careful() (*telford.Service, error) {
	svc, err := telford.New("orders", telford.FromEnv(),
		telford.RetryBudget(0.05),                       // a twentieth
		telford.CircuitBreaker(20, 0.6, 15*time.Second), // or NoCircuitBreaker()
	)
	return svc, err
}

// Policy is what a service has to say about who calls it, and hears about whom it calls.
func Policy(svc *telford.Service, log *slog.Logger) error {
	refund := func(context.Context, *Charge) (*Receipt, error) { return &Receipt{}, nil }
	err := telford.Handle(svc, "refund", refund, telford.AllowedCallers("backoffice", "orders"))
	svc.OnPolicyViolation(func(v telford.PolicyViolation) {
		log.Warn("not allowed", "what", v.Declaration, "value", v.Value, "side", v.Side, "why", v.Reason)
	})
	return err
}

// Limits says how much of a method may run.
func Limits(svc *telford.Service, charge func(context.Context, *Charge) (*Receipt, error)) error {
	return telford.Handle(svc, "charge", charge,
		telford.Concurrency(20), telford.Queue(100), // at once, and in line behind them
		// A second one: 50/s for each caller.
		telford.Limit(telford.Rate(50, 10), telford.LimitBy(telford.ByCaller())),
		telford.Timeout(5*time.Second), // of one run, whatever the caller would wait
	)
}

// Configured says it of the methods of a generated service.
func Configured(svc *telford.Service, impl shopv1.InventoryServer) error {
	shopv1.RegisterInventoryServer(svc, impl)
	return svc.Configure("shop.v1.Inventory/Reserve",
		telford.Concurrency(8), telford.LimitBy(telford.ByFunc(func(_ context.Context, in *shopv1.ReserveRequest) string {
			return in.GetSku()
		})),
		telford.Retryable(false),
	)
}

// Once makes a call that may be repeated, by this process or by the one after it.
func Once(ctx context.Context, svc *telford.Service, in *Charge) (*Receipt, error) {
	return telford.Call[Receipt](ctx, svc, "payments", "charge", in,
		telford.IdempotencyKey("charge-"+in.Order),
		telford.BusinessKey(in.Order), // for people, to find it
	)
}

// Errors decides by codes.
func Errors(err error) string {
	var e *telford.Error
	switch {
	case errors.Is(err, telford.ErrNoInstance):
		return "nobody is there"
	case errors.Is(err, telford.ErrFailedPrecondition):
		return "not now"
	case status.Code(err) == codes.ResourceExhausted: // from generated stubs, as ever
		return "later"
	case errors.As(err, &e):
		return fmt.Sprintf("%s failed in %s, not begun: %t", e.Operation, e.Component, e.NotStarted)
	}
	return err.Error()
}

// Life is how a service lives.
func Life(ctx context.Context, svc *telford.Service) error {
	svc.OnConnected(func(telford.Connected) { slog.Info("on the map") })
	svc.OnReconnecting(func(r telford.Reconnecting) { slog.Warn("cut off", "attempt", r.Attempt, "cause", r.Cause) })
	svc.OnDisconnected(func(d telford.Disconnected) { slog.Error("gone for good", "reason", d.Reason) })

	if err := svc.Start(ctx); err != nil {
		return err
	}
	if err := svc.WaitReady(ctx, "ledger"); err != nil {
		return err
	}
	if err := svc.SetStatus(telford.StatusWarning, "the bank is slow"); err != nil {
		return err
	}

	<-ctx.Done()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return svc.Stop(drain)
}
