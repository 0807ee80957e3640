package scenarios

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"telford.dev/telford"
)

// keyedCall is one request that its caller repeats under its key until it is answered.
type keyedCall struct {
	id       string
	instance string    // who answered
	begin    time.Time // of the first try
	end      time.Time // of the one that was answered
	tries    int
}

// call makes the call, and again as long as nobody answers.
func (k *keyedCall) call(ctx context.Context, s *telford.Service) error {
	for ctx.Err() == nil {
		k.tries++
		resp, err := telford.Call[workResp](ctx, s, "work", "work", &workReq{ID: k.id, Time: 20 * time.Millisecond},
			telford.IdempotencyKey(k.id), telford.BusinessKey("kill"), telford.Timeout(2*time.Second))
		switch {
		case err == nil && k.end.IsZero():
			k.instance, k.end = resp.Instance, time.Now()
			return nil
		case err == nil && resp.Instance != k.instance:
			return fmt.Errorf("call %s was answered by %s and now by %s", k.id, k.instance, resp.Instance)
		case err == nil:
			return nil
		case !errors.Is(err, telford.ErrUnavailable) && !errors.Is(err, telford.ErrDeadlineExceeded) && !errors.Is(err, telford.ErrNoInstance):
			return fmt.Errorf("call %s: %w", k.id, err)
		}
	}
	return nil
}

// The runtime is killed again and again under calls with keys. What was answered stays
// answered, by the same instance, and has run once unless it was under way at a kill;
// what was not is answered in the end.
func TestKilledRuntimeKeepsAnswers(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.workers(3)
	caller := c.caller(3)
	ctx, cancel := context.WithTimeout(t.Context(), size(2*time.Minute, 20*time.Minute))
	defer cancel()
	var mu sync.Mutex
	var all []*keyedCall
	var answered atomic.Int64
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for n := range 16 {
		callers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				k := &keyedCall{id: fmt.Sprintf("key-%d-%d", n, i), begin: time.Now()}
				if err := k.call(ctx, caller); err != nil {
					t.Error(err)
					return
				}
				answered.Add(1)
				mu.Lock()
				all = append(all, k)
				mu.Unlock()
			}
		})
	}
	var cuts []cut
	for range size(3, 30) {
		before := answered.Load()
		within(t, time.Minute, "calls are answered", func() bool { return answered.Load() > before+200 })
		from := time.Now()
		c.runtime.kill(t)
		c.serve()
		cuts = append(cuts, cut{from, time.Now()})
	}
	before := answered.Load()
	within(t, time.Minute, "calls are answered", func() bool { return answered.Load() > before+100 })
	close(stop)
	callers.Wait()
	if ctx.Err() != nil {
		t.Fatal("the calls took too long")
	}

	runs := c.executed()
	again, twice := 0, 0
	for _, k := range all {
		under := false
		for _, x := range cuts {
			under = under || k.begin.Before(x.to) && k.end.After(x.from)
		}
		switch n := runs[k.id]; {
		case n == 0:
			t.Errorf("call %s was answered and never ran", k.id)
		case n > 1 && !under:
			t.Errorf("call %s ran %d times, and no kill came in between", k.id, n)
		case n > 1+len(cuts):
			t.Errorf("call %s ran %d times", k.id, n)
		case n > 1:
			twice++
		}
		if k.tries > 1 {
			again++
		}
	}
	t.Logf("%d calls, %d of them tried again by their callers; the outcome of %d was unknown, and they ran again", len(all), again, twice)

	// Everything that was answered is answered the same, and does not run.
	for _, k := range all {
		if err := k.call(ctx, caller); err != nil {
			t.Error(err)
		}
	}
	for id, n := range c.executed() {
		if runs[id] != n {
			t.Errorf("call %s ran again after its answer", id)
		}
	}
	shown := c.cli("idempotency", "show", all[0].id)
	for _, says := range []string{"answered", all[0].instance, "caller caller, callee work, method work", "success", "kill"} {
		if !strings.Contains(shown, says) {
			t.Errorf("idempotency show does not say %q:\n%s", says, shown)
		}
	}
}
