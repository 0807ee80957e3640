package sdktest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"telford.dev/telford"
)

// load calls echo again and again until it is stopped, and keeps what failed.
type load struct {
	calls  atomic.Int64
	stop   context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	failed []error
	seen   map[string]int
}

// startLoad begins with so many callers.
func startLoad(t *testing.T, caller *telford.Service, callers int, opts ...telford.CallOption) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{stop: cancel, seen: make(map[string]int)}
	for i := range callers {
		l.wg.Go(func() {
			pause := time.NewTicker(time.Millisecond)
			defer pause.Stop()
			for n := 0; ctx.Err() == nil; n++ {
				text := fmt.Sprintf("%d/%d", i, n)
				resp, err := telford.Call[echoResp](t.Context(), caller, "echo", "echo", &echoReq{Text: text}, opts...)
				l.calls.Add(1)
				l.mu.Lock()
				switch {
				case err != nil:
					l.failed = append(l.failed, err)
				case resp.Text != text:
					l.failed = append(l.failed, fmt.Errorf("asked for %q, got %q", text, resp.Text))
				default:
					l.seen[resp.Instance]++
				}
				l.mu.Unlock()
				select {
				case <-pause.C:
				case <-ctx.Done():
				}
			}
		})
	}
	t.Cleanup(func() { l.end() })
	return l
}

// end stops the load and returns what failed.
func (l *load) end() []error {
	l.stop()
	l.wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// noFailure ends the load and fails the test if any call has failed.
func (l *load) noFailure(t *testing.T) {
	t.Helper()
	if failed := l.end(); len(failed) > 0 {
		t.Fatalf("%d of %d calls failed; the first: %v", len(failed), l.calls.Load(), failed[0])
	}
	if l.calls.Load() == 0 {
		t.Fatal("no call was made")
	}
}

// after waits until so many more calls were made.
func (l *load) after(t *testing.T, n int64) {
	t.Helper()
	until := l.calls.Load() + n
	eventually(t, fmt.Sprintf("%d more calls", n), func() bool { return l.calls.Load() >= until })
}

// count is how many calls an instance has answered.
func (l *load) count(instance string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[instance]
}

// eventually polls until ok holds, for at most 20 s.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("%s: did not happen within 20 s", what)
		}
	}
}

// soak is the first of two sizes, and the second with TELFORD_SOAK=1.
func soak[T any](short, long T) T {
	if os.Getenv("TELFORD_SOAK") == "1" {
		return long
	}
	return short
}
