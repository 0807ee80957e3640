package telford_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"telford.dev/telford"
)

type Charge struct {
	Order  string `json:"order"`
	Amount int64  `json:"amount"`
}

type Receipt struct {
	ID string `json:"id"`
}

type Token struct {
	Text string `json:"text"`
}

// A whole service: it takes its address and key from the environment, serves one method
// and ends in order on SIGTERM.
func Example() {
	svc, err := telford.New("payments", telford.FromEnv(), telford.Version("1.4.0"))
	if err != nil {
		panic(err)
	}
	err = telford.Handle(svc, "charge", func(_ context.Context, in *Charge) (*Receipt, error) {
		if in.Amount <= 0 {
			return nil, telford.Errorf(telford.CodeInvalidArgument, "amount %d is not positive", in.Amount)
		}
		return &Receipt{ID: "r-" + in.Order}, nil
	})
	if err != nil {
		panic(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := svc.Start(ctx); err != nil {
		panic(err)
	}
	<-ctx.Done()
	if err := svc.Stop(context.Background()); err != nil {
		fmt.Println(err)
	}
}

func ExampleNew() {
	_, err := telford.New("Payments!", telford.WithServer("nowhere"))
	fmt.Println(err)
	// Output:
	// new service Payments!: invalid_argument: 3 options are wrong:
	// - service name "Payments!": want 1 to 128 of a-z, 0-9, '.', '_', '-'
	// - WithServer: "nowhere" is not host:port
	// - there is no identity: give WithKey, FromEnv with TELFORD_KEY set, or WithTLS
}

func ExampleHandleStream() {
	var svc *telford.Service
	err := telford.HandleStream(svc, "generate", func(ctx context.Context, in *Charge, out *telford.Sender[Token]) error {
		for _, word := range []string{"paid", "in", "full"} {
			// Send waits while the caller is behind, and fails once it has left.
			if err := out.Send(&Token{Text: word}); err != nil {
				return err
			}
		}
		return nil
	}, telford.Description("Writes the receipt word by word"))
	if err != nil {
		fmt.Println(err)
	}
}

func ExampleService_RegisterService() {
	var svc *telford.Service
	// Whatever protoc-gen-go-grpc has generated takes a Service.
	testpb.RegisterTestServiceServer(svc, testpb.UnimplementedTestServiceServer{})
}

func ExampleCall() {
	var svc *telford.Service
	ctx := context.Background()
	receipt, err := telford.Call[Receipt](ctx, svc, "payments", "charge", &Charge{Order: "42", Amount: 100}, telford.Timeout(2*time.Second))
	var denied *telford.AccessDeniedError
	switch {
	case errors.As(err, &denied):
		fmt.Printf("not allowed to call %s of %s: %s\n", denied.Method, denied.Service, denied.Reason)
	case errors.Is(err, telford.ErrNoInstance):
		fmt.Println("no instance of payments runs")
	case err != nil:
		fmt.Println(err)
	default:
		fmt.Println(receipt.ID)
	}
}

func ExampleStream() {
	var svc *telford.Service
	ctx := context.Background()
	for token, err := range telford.Stream[Token](ctx, svc, "payments", "generate", &Charge{Order: "42"}) {
		if err != nil {
			fmt.Println(err)
			break
		}
		fmt.Print(token.Text, " ")
		if token.Text == "full" {
			break // the handler's context ends
		}
	}
}

func ExampleService_Conn() {
	var svc *telford.Service
	client := testpb.NewTestServiceClient(svc.Conn("payments", telford.Transport(telford.Direct)))
	var header metadata.MD
	ctx := metadata.AppendToOutgoingContext(context.Background(), "tenant", "acme")
	resp, err := client.UnaryCall(ctx, &testpb.SimpleRequest{}, grpc.Header(&header), telford.MaxAttempts(1))
	fmt.Println(resp, err, header)
}

func ExampleService_GRPCConn() {
	var svc *telford.Service
	cc, err := svc.GRPCConn("payments")
	if err != nil {
		fmt.Println(err)
		return
	}
	stream, err := testpb.NewTestServiceClient(cc).FullDuplexCall(context.Background())
	fmt.Println(stream, err)
}

func ExampleCallDefaults() {
	_, err := telford.New("orders", telford.FromEnv(),
		telford.CallDefaults(telford.Timeout(5*time.Second), telford.MaxAttempts(5), telford.RetryDelay(50*time.Millisecond, 2, time.Second)))
	if err != nil {
		fmt.Println(err)
	}
}

func ExampleTransport() {
	var svc *telford.Service
	_, err := telford.Call[Receipt](context.Background(), svc, "payments", "charge", &Charge{}, telford.Transport(telford.Proxy), telford.FailFast())
	if errors.Is(err, telford.ErrUnavailable) {
		fmt.Println("the runtime is away, and the call did not wait for it")
	}
}

func ExampleVersion() {
	// Of this service ...
	svc, err := telford.New("payments", telford.FromEnv(), telford.Version("2.0"), telford.CompatibleVersions("1.9"), telford.Realm("eu"))
	if err != nil {
		fmt.Println(err)
		return
	}
	// ... and of the instances that a call may go to.
	_, err = telford.Call[Receipt](context.Background(), svc, "ledger", "book", &Charge{}, telford.Version("3.1"), telford.Realm("eu*"))
	if err != nil {
		fmt.Println(err)
	}
}

func ExampleInboundFrom() {
	var svc *telford.Service
	err := telford.Handle(svc, "charge", func(ctx context.Context, _ *Charge) (*Receipt, error) {
		if in, ok := telford.InboundFrom(ctx); ok {
			fmt.Printf("%s asks, request %s, until %s\n", in.Caller.Service, in.RequestID, in.Deadline)
		}
		return &Receipt{}, nil
	})
	if err != nil {
		fmt.Println(err)
	}
}

func ExampleResponseHeader() {
	var svc *telford.Service
	var header, trailer metadata.MD
	_, err := telford.Call[Receipt](context.Background(), svc, "payments", "charge", &Charge{},
		telford.Header("tenant", "acme"), telford.ResponseHeader(&header), telford.ResponseTrailer(&trailer))
	fmt.Println(header["region"], trailer["cost"], err)
}

func ExampleErrorf() {
	err := telford.Errorf(telford.CodeConflict, "order %s is paid already", "42")
	fmt.Println(err)
	fmt.Println(errors.Is(err, telford.ErrConflict), err.GRPCCode, err.Retryable)
	// Output:
	// conflict: order 42 is paid already
	// true Aborted false
}

func ExampleService_OnConnected() {
	var svc *telford.Service
	svc.OnConnected(func(c telford.Connected) { fmt.Printf("on the map as %s\n", c.Instance) })
	svc.OnReconnecting(func(r telford.Reconnecting) { fmt.Printf("attempt %d in %s: %v\n", r.Attempt, r.Delay, r.Cause) })
	svc.OnDraining(func(d telford.Draining) { fmt.Printf("finishing: %s\n", d.Reason) })
	svc.OnDisconnected(func(d telford.Disconnected) { fmt.Printf("over: %s: %v\n", d.Reason, d.Cause) })
}

func ExampleService_WaitReady() {
	var svc *telford.Service
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := svc.WaitReady(ctx, "payments", "inventory"); err != nil {
		fmt.Println(err)
	}
}

func ExampleService_HealthHandler() {
	svc, err := telford.New("payments", telford.FromEnv(), telford.DeafAfter(2*time.Minute), telford.ExitWhenDeaf(os.Exit))
	if err != nil {
		fmt.Println(err)
		return
	}
	svc.OnDeaf(func(d telford.Deaf) { fmt.Printf("deaf since %s: %v, over: %v\n", d.Since, d.Cause, d.Over) })
	http.Handle("/readyz", svc.HealthHandler())
}

func ExampleService_SetStatus() {
	var svc *telford.Service
	if err := svc.SetStatus(telford.StatusSuspended, "the bank is closed"); err != nil {
		fmt.Println(err)
	}
}

func ExampleService_ServiceMap() {
	var svc *telford.Service
	for name, info := range svc.ServiceMap() {
		for _, i := range info.Instances {
			fmt.Println(name, i.ID, i.Version, i.Status, i.Address)
		}
	}
}

func ExampleService_Identity() {
	var svc *telford.Service
	fmt.Println(svc.Identity().URI)
}

func ExampleUses() {
	_, err := telford.New("orders", telford.FromEnv(), telford.StrictDeclarations(),
		telford.Uses("payments", "charge"), telford.UsesWorkflow("shipping"), telford.Publishes("order.placed"))
	if err != nil {
		fmt.Println(err)
	}
}

func ExampleAdvertise() {
	_, err := telford.New("payments", telford.FromEnv(), telford.Listen(":7000"), telford.Advertise("payments-0.internal", 7000))
	if err != nil {
		fmt.Println(err)
	}
}

func ExampleWithTLS() {
	var cert, key, ca []byte // PEM
	_, err := telford.New("payments", telford.WithServer("telford.internal:14445"), telford.WithTLS(cert, key, ca, "telford.internal"))
	fmt.Println(err)
	// Output:
	// new service payments: invalid_argument: 2 options are wrong:
	// - WithTLS: there is no certificate
	// - there is no identity: give WithKey, FromEnv with TELFORD_KEY set, or WithTLS
}

func ExampleUnaryServerInterceptors() {
	timed := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		start := time.Now()
		defer func() { fmt.Printf("%s took %s\n", info.FullMethod, time.Since(start)) }()
		return next(ctx, req)
	}
	_, err := telford.New("payments", telford.FromEnv(), telford.UnaryServerInterceptors(timed))
	if err != nil {
		fmt.Println(err)
	}
}
