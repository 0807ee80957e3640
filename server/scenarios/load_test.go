package scenarios

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"telford.dev/telford"
)

// outcome is what became of one call.
type outcome struct {
	id         string
	begin, end time.Time
	instance   string // who answered
	err        error
}

// load is an open loop of calls at a rate: a slow answer does not slow down the next
// call.
type load struct {
	name   string
	mode   string // as given
	cancel context.CancelFunc
	wg     sync.WaitGroup
	done   atomic.Int64
	first  time.Time
	last   time.Time

	mu       sync.Mutex
	outcomes []outcome

	// cuts are when calls were lost that were in flight.
	cuts []cut
}

// cut is a moment as far as it is known: not before from, not after to.
type cut struct{ from, to time.Time }

// maxOutstanding bounds the calls of a load that wait for their answers.
const maxOutstanding = 4096

var loads atomic.Int64

// startLoad calls "work" rate times a second; each call takes work in its handler.
func startLoad(t testing.TB, caller *telford.Service, name string, rate int, work time.Duration, opts ...telford.CallOption) *load {
	t.Helper()
	return startAsking(t, name, rate, func(ctx context.Context, id string) (string, error) {
		resp, err := telford.Call[workResp](ctx, caller, "work", "work", &workReq{ID: id, Time: work}, opts...)
		switch {
		case err != nil:
			return "", err
		case resp.ID != id:
			return "", fmt.Errorf("asked for %s, got the answer of %s", id, resp.ID)
		}
		return resp.Instance, nil
	})
}

// startAsking calls ask rate times a second, which makes a call of the given id and
// returns who answered it.
func startAsking(t testing.TB, name string, rate int, ask func(ctx context.Context, id string) (string, error)) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{mode: name, name: fmt.Sprintf("%s%d", name, loads.Add(1)), cancel: cancel, first: time.Now()}
	l.wg.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		free := make(chan struct{}, maxOutstanding)
		for n := 0; ; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			due := int(time.Since(l.first).Seconds() * float64(rate))
			// Lost time is not made up for in one burst.
			if due > n+100 {
				n = due - 100
			}
			for ; n < due; n++ {
				select {
				case free <- struct{}{}:
				default:
					continue
				}
				id := fmt.Sprintf("%s/%d", l.name, n)
				l.wg.Go(func() {
					l.one(id, ask)
					<-free
				})
			}
		}
	})
	t.Cleanup(func() { l.stop() })
	return l
}

func (l *load) one(id string, ask func(ctx context.Context, id string) (string, error)) {
	o := outcome{id: id, begin: time.Now()}
	o.instance, o.err = ask(context.Background(), id)
	o.end = time.Now()
	l.mu.Lock()
	l.outcomes = append(l.outcomes, o)
	l.mu.Unlock()
	l.done.Add(1)
}

// stop ends the load, waits for the calls under way and returns what became of all.
func (l *load) stop() []outcome {
	if l.last.IsZero() {
		l.last = time.Now()
	}
	l.cancel()
	l.wg.Wait()
	return l.outcomes
}

// after waits until n more calls were answered.
func (l *load) after(t testing.TB, n int64) {
	t.Helper()
	until := l.done.Load() + n
	within(t, patience, fmt.Sprintf("%d more calls of %s", n, l.name), func() bool { return l.done.Load() >= until })
}

// since counts the answers of each instance from a moment on.
func (l *load) since(from time.Time) map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	count := make(map[string]int)
	for _, o := range l.outcomes {
		if o.err == nil && o.begin.After(from) {
			count[o.instance]++
		}
	}
	return count
}

// failures are the outcomes with an error.
func failures(all []outcome) []outcome {
	return slices.DeleteFunc(slices.Clone(all), func(o outcome) bool { return o.err == nil })
}

// report says how many calls there were, and at what pace.
func (l *load) report(t testing.TB) {
	t.Helper()
	failed := failures(l.outcomes)
	t.Logf("%s: %d calls, %.0f a second, %d failed, slowest %v", l.name, len(l.outcomes),
		float64(len(l.outcomes))/max(l.last.Sub(l.first).Seconds(), 0.001), len(failed), slowest(l.outcomes).Round(time.Millisecond))
}

func slowest(all []outcome) (d time.Duration) {
	for _, o := range all {
		d = max(d, o.end.Sub(o.begin))
	}
	return d
}

// complain lists failures, by what they say.
func (l *load) complain(t testing.TB, failed []outcome) {
	t.Helper()
	kinds := make(map[string]int)
	for _, o := range failed {
		kinds[o.err.Error()]++
	}
	t.Errorf("%s: %d of %d calls failed", l.name, len(failed), len(l.outcomes))
	for i, text := range slices.Sorted(maps.Keys(kinds)) {
		if i == 8 {
			break
		}
		t.Logf("%d times: %s", kinds[text], text)
	}
	first, last := failed[0], failed[len(failed)-1]
	t.Logf("the first began %v after the start of the load and took %v; the last %v and %v", first.begin.Sub(l.first), first.end.Sub(first.begin),
		last.begin.Sub(l.first), last.end.Sub(last.begin))
}

// noFailure ends the load; no call may have failed.
func (l *load) noFailure(t testing.TB) {
	t.Helper()
	all := l.stop()
	l.report(t)
	if len(all) == 0 {
		t.Errorf("%s: no call was made", l.name)
	}
	if failed := failures(all); len(failed) > 0 {
		l.complain(t, failed)
	}
}

// onlyInFlight ends the load; only calls that were under way at a cut may have failed. It
// returns how many those were and how many of them failed.
func (l *load) onlyInFlight(t testing.TB) (inFlight, failed int) {
	t.Helper()
	all := l.stop()
	l.report(t)
	var wrong []outcome
	for _, o := range all {
		under := slices.ContainsFunc(l.cuts, func(c cut) bool { return o.begin.Before(c.to) && o.end.After(c.from) })
		if under {
			inFlight++
		}
		switch {
		case o.err == nil:
		case under:
			failed++
		default:
			wrong = append(wrong, o)
		}
	}
	t.Logf("%s: of %d calls in flight at %d cuts %d failed", l.name, inFlight, len(l.cuts), failed)
	if len(wrong) > 0 {
		l.complain(t, wrong)
	}
	return inFlight, failed
}

// onceEach checks that what was answered ran once, and nothing ran twice.
func onceEach(t testing.TB, c *cluster, ls ...*load) {
	t.Helper()
	ran := c.executed()
	doubled, missing := 0, 0
	for _, l := range ls {
		for _, o := range l.outcomes {
			switch n := ran[o.id]; {
			case n > 1:
				doubled++
			case n == 0 && o.err == nil:
				missing++
			}
		}
	}
	if doubled > 0 || missing > 0 {
		t.Errorf("%d calls ran more than once; %d were answered by nobody", doubled, missing)
	}
}
