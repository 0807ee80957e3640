package store_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/idempotency"
	"telford.dev/telford/server/internal/store"
	"telford.dev/telford/server/internal/store/storetest"
)

// openKeys opens the keys of a store as a runtime does whose instances have all gone.
func openKeys(s *store.Store) (*idempotency.Keys, error) {
	return idempotency.New(idempotency.Config{
		DB: s, Storage: s, Clock: s.Clock(), Exclusive: s.Kind() == "sqlite", Lease: time.Second,
		Alive: func(string, string) bool { return false },
	})
}

// callKey makes the one call of a key. run is told of it when it runs, and its answer is
// the name of this process.
func callKey(ctx context.Context, k *idempotency.Keys, key string, run func()) (answer string, err error) {
	call := &message.Call{
		Service: "payments", Method: "pay", Caller: message.Caller{Service: "shop"}, IdempotencyKey: key,
		Body: []byte(key), Deadline: time.Now().Add(time.Minute),
	}
	reply, err := k.Call(ctx, "default", call, false, func(_ context.Context, _ *message.Call, claim func(string, bool) error) (*message.Reply, error) {
		if err := claim("in_1", false); err != nil {
			return nil, err
		}
		run()
		return &message.Reply{Body: fmt.Appendf(nil, "process %d", os.Getpid())}, nil
	})
	if err != nil {
		return "", err
	}
	return string(reply.Body), nil
}

// childCalls makes calls with keys from several goroutines, for ever. It says "run" when
// one runs and "answer" when it is answered.
func childCalls() error {
	ctx := context.Background()
	s, err := store.Open(ctx, store.Config{URL: os.Getenv(urlVariable), Data: os.Getenv(dataVariable)})
	if err != nil {
		return err
	}
	k, err := openKeys(s)
	if err != nil {
		return err
	}
	failed := make(chan error)
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("%d-%d-%d", os.Getpid(), w, i)
				answer, err := callKey(ctx, k, key, func() { say("run %s", key) })
				if err != nil {
					failed <- err
					return
				}
				say("answer %s %s", key, answer)
			}
		}()
	}
	return <-failed
}

func testKilledKeys(t *testing.T, cfg store.Config) {
	t.Parallel()
	for range heavy(50, 2) {
		cmd := command(t, "keyed", nil, dataVariable+"="+cfg.Data, urlVariable+"="+cfg.URL)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ran, answered := map[string]int{}, map[string]string{}
		lines := bufio.NewReader(out)
		for killed := false; ; {
			line, err := lines.ReadString('\n')
			if err != nil {
				break // a line without its end was not said
			}
			what, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
			key, answer, _ := strings.Cut(rest, " ")
			switch what {
			case "run":
				ran[key]++
			case "answer":
				answered[key] = answer
			}
			if len(answered) == 100 && !killed {
				killed = true
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait() // it was killed
		if len(answered) < 100 {
			t.Fatalf("%d answers", len(answered))
		}
		checkKilledKeys(t, cfg, ran, answered)
	}
}

// checkKilledKeys makes all calls again: what was answered is answered the same and does
// not run; what was not may run.
func checkKilledKeys(t *testing.T, cfg store.Config, ran map[string]int, answered map[string]string) {
	t.Helper()
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	k, err := openKeys(s)
	if err != nil {
		t.Fatal(err)
	}
	open := 0
	var all sync.WaitGroup
	for key, n := range ran {
		if n != 1 {
			t.Errorf("call %s ran %d times before the kill", key, n)
		}
		want, acknowledged := answered[key]
		if !acknowledged {
			open++
		}
		all.Go(func() {
			again := false
			got, err := callKey(t.Context(), k, key, func() { again = true })
			switch {
			case err != nil:
				t.Errorf("call %s: %v", key, err)
			case acknowledged && (again || got != want):
				t.Errorf("call %s was answered %q and now %q, run again: %t", key, want, got, again)
			}
		})
	}
	all.Wait()
	for key := range answered {
		if ran[key] != 1 {
			t.Errorf("call %s was answered and ran %d times", key, ran[key])
		}
	}
	t.Logf("%d calls were answered before the kill, %d were under way", len(answered), open)
	if err := k.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAKilledProcessKeepsTheAnswersOfKeys(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) { testKilledKeys(t, store.Config{Data: t.TempDir()}) })
	t.Run("postgres", func(t *testing.T) { testKilledKeys(t, store.Config{URL: storetest.Postgres(t)}) })
}

// BenchmarkKeys is what a call with a new key costs in a store that syncs, with many
// callers at once.
func BenchmarkKeys(b *testing.B) {
	for kind, cfg := range map[string]store.Config{"sqlite": {Data: b.TempDir()}, "postgres": {}} {
		b.Run(kind, func(b *testing.B) {
			if kind == "postgres" {
				cfg.URL = storetest.Postgres(b)
			}
			k, err := openKeys(openConfig(b, cfg))
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = k.Stop(context.Background()) }()
			var n atomic.Int64
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := callKey(b.Context(), k, fmt.Sprintf("%s-%d-%d", kind, b.N, n.Add(1)), func() {}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
