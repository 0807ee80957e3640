package scenarios

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc/interop/grpc_testing"

	"telford.dev/telford"
)

// workerEnv holds the workerSpec of a process that is to be a worker.
const workerEnv = "TELFORD_SCENARIO_WORKER"

// workerSpec says what a worker process is.
type workerSpec struct {
	Service, Instance, Locality string
	Server, Key                 string
	Listen, Advertise           string // host:port; empty: the defaults
	Port                        int    // of Advertise
	Journal                     string // a file that gets the id of every call that begins
	Contract                    int    // the version of the contract that it serves besides; 0: none
}

type workReq struct {
	ID   string        `json:"id"`
	Time time.Duration `json:"time"`
}

type workResp struct {
	ID       string `json:"id"`
	Instance string `json:"instance"`
}

type chunk struct {
	Data []byte `json:"data"`
}

// work is the main function of a worker. It ends in order at SIGTERM, and at once when
// the process that started it is gone.
func work(text string) int {
	var spec workerSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // it ends with the parent
		os.Exit(3)
	}()
	s, err := spec.start()
	if err != nil {
		fmt.Fprintln(os.Stderr, "start:", err)
		return 1
	}
	fmt.Println("ready", s.Identity().Instance)
	<-signals
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "stop:", err)
		return 1
	}
	return 0
}

func (spec *workerSpec) start() (*telford.Service, error) {
	opts := []telford.Option{
		telford.WithServer(spec.Server), telford.WithKey(spec.Key),
		telford.Logger(slog.New(slog.NewTextHandler(os.Stderr, nil))),
	}
	if spec.Instance != "" {
		opts = append(opts, telford.InstanceID(spec.Instance))
	}
	if spec.Locality != "" {
		opts = append(opts, telford.Locality(spec.Locality))
	}
	if spec.Listen != "" {
		opts = append(opts, telford.Listen(spec.Listen))
	}
	if spec.Advertise != "" {
		opts = append(opts, telford.Advertise(spec.Advertise, spec.Port))
	}
	if spec.Contract > 0 {
		opts = append(opts, telford.Version(fmt.Sprintf("%d.0.0", spec.Contract)))
	}
	s, err := telford.New(spec.Service, opts...)
	if err != nil {
		return nil, err
	}
	journal, err := os.OpenFile(spec.Journal, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(handlers(s, journal), side(s, journal, spec.Contract)); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return s, s.Start(ctx)
}

// handlers are what the tests call.
func handlers(s *telford.Service, journal io.Writer) error {
	s.RegisterService(&grpc_testing.TestService_ServiceDesc, &generated{})
	return errors.Join(
		// work notes that it has begun, takes its time and says who did it.
		telford.Handle(s, "work", func(ctx context.Context, in *workReq) (*workResp, error) {
			if _, err := io.WriteString(journal, in.ID+"\n"); err != nil {
				return nil, err
			}
			if in.Time > 0 {
				t := time.NewTimer(in.Time)
				defer t.Stop()
				select {
				case <-t.C:
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
			return &workResp{ID: in.ID, Instance: s.Identity().Instance}, nil
		}),
		// flood sends for as long as anybody listens.
		telford.HandleStream(s, "flood", func(_ context.Context, _ *workReq, out *telford.Sender[chunk]) error {
			c := &chunk{Data: make([]byte, 32<<10)}
			for {
				if err := out.Send(c); err != nil {
					return err
				}
			}
		}),
	)
}

// generated is a service of generated code, for callers that speak plain gRPC.
type generated struct {
	grpc_testing.UnimplementedTestServiceServer
}

func (*generated) EmptyCall(context.Context, *grpc_testing.Empty) (*grpc_testing.Empty, error) {
	return &grpc_testing.Empty{}, nil
}
