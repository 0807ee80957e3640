package limit

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"telford.dev/telford/internal/clock"
)

// Gate bounds what runs at once; a bounded number of others waits in order. While there
// is room, entering and leaving take no lock and no memory. Nobody gets past who waits.
// It is safe for concurrent use.
type Gate struct {
	bounds *bounds
	// state is the number of those who wait above that of those who run, 32 bits each.
	// The number of those who wait changes only with mu held.
	state atomic.Uint64
	// slow: leaving has to take the lock, to be counted or to wake who waits for quiet.
	slow atomic.Bool

	mu    sync.Mutex
	line  line
	quiet []chan struct{} // of those who wait for nothing to run
	pulse pulse
}

// bounds are the numbers of one or many gates.
type bounds struct {
	concurrency, queue atomic.Int64
	clock              clock.Clock
	stop               <-chan struct{} // nil: nothing ends the waiting of all
}

const (
	oneWaits = 1 << 32
	runMask  = oneWaits - 1
	noBound  = 1 << 31 // more than ever run
)

func running(state uint64) int64 { return int64(state & runMask) }
func waiting(state uint64) int64 { return int64(state >> 32) }

// Options are what limits have in common.
type Options struct {
	// Clock tells the time; nil means the clock of the machine.
	Clock clock.Clock
	// Stop, when it is closed, ends the waiting of all, unbegun.
	Stop <-chan struct{}
	// MaxKeys is how many keys are counted apart; 0 means DefaultKeys. The keys beyond
	// share one count.
	MaxKeys int
}

func newBounds(o Options) *bounds {
	b := &bounds{clock: o.Clock, stop: o.Stop}
	if b.clock == nil {
		b.clock = clock.Real()
	}
	return b
}

func (b *bounds) set(concurrency, queue int) {
	if concurrency <= 0 {
		concurrency, queue = noBound, 0
	}
	b.queue.Store(int64(queue))
	b.concurrency.Store(int64(concurrency))
}

// NewGate returns a gate that lets concurrency run, any number where that is 0, and queue
// more wait.
func NewGate(concurrency, queue int, o Options) *Gate {
	g := &Gate{bounds: newBounds(o)}
	g.bounds.set(concurrency, queue)
	return g
}

// Set changes the bounds. Who runs runs on, and who waits keeps its place, also where
// there are more of them than the new bounds allow.
func (g *Gate) Set(concurrency, queue int) {
	g.bounds.set(concurrency, queue)
	g.admit()
}

// Bounds returns how many may run, 0 meaning any number, and how many may wait.
func (g *Gate) Bounds() (concurrency, queue int) {
	concurrency, queue = int(g.bounds.concurrency.Load()), int(g.bounds.queue.Load())
	if concurrency == noBound {
		return 0, 0
	}
	return concurrency, queue
}

// Running is the number of those who run now, and Waiting of those who wait.
func (g *Gate) Running() int { return int(running(g.state.Load())) }

// Waiting is the number of those who wait in line.
func (g *Gate) Waiting() int { return int(waiting(g.state.Load())) }

// Enter lets the caller in, at once or when its turn has come; it then has to Leave.
// Waiting ends with ctx, and a little before the deadline of ctx, while an answer still
// reaches whoever set it.
func (g *Gate) Enter(ctx context.Context) *Refusal {
	if g.try() {
		return nil
	}
	return g.wait(ctx)
}

func (g *Gate) try() bool {
	for {
		s := g.state.Load()
		if waiting(s) > 0 || running(s) >= g.bounds.concurrency.Load() {
			return false
		}
		if g.state.CompareAndSwap(s, s+1) {
			return true
		}
	}
}

func (g *Gate) wait(ctx context.Context) *Refusal {
	g.mu.Lock()
	for {
		// Who left since has not seen anybody waiting.
		if g.try() {
			g.mu.Unlock()
			return nil
		}
		s := g.state.Load()
		if waiting(s) >= g.bounds.queue.Load() {
			if running(s) < g.bounds.concurrency.Load() && waiting(s) == 0 {
				continue // it was left between the two looks
			}
			g.resume(s)
			r := g.refusal(s, Full)
			r.After = g.pulse.estimate(int(waiting(s)))
			g.slow.Store(true)
			g.mu.Unlock()
			return r
		}
		if g.state.CompareAndSwap(s, s+oneWaits) {
			g.resume(s)
			break
		}
	}
	w := g.line.push()
	g.mu.Unlock()

	soon, stopTimer := g.patience(ctx)
	why := Canceled
	select {
	case <-w.turn:
		stopTimer()
		return nil
	case <-ctx.Done():
	case <-soon:
		why = Late
	case <-g.bounds.stop:
		why = Stopped
	}
	stopTimer()
	return g.giveUp(ctx, w, why)
}

// resume begins, with mu held, to measure anew after a time in which nobody did.
func (g *Gate) resume(state uint64) {
	if waiting(state) == 0 && !g.slow.Load() {
		g.pulse.pause()
	}
}

// giveUp leaves the line, or the gate where the turn has come at the same moment.
func (g *Gate) giveUp(ctx context.Context, w *waiter, why Reason) *Refusal {
	g.mu.Lock()
	s := g.state.Load()
	if w.at == nil {
		g.mu.Unlock()
		if why == Late {
			return nil // there is still some time
		}
		g.Leave()
		r := g.refusal(s, why)
		r.cause = ctx.Err()
		return r
	}
	r := g.refusal(s, why)
	r.Place = g.line.place(w)
	r.After = g.pulse.estimate(r.Place)
	r.cause = ctx.Err()
	g.line.take(w)
	g.state.Add(^uint64(oneWaits - 1))
	g.tellQuiet()
	g.mu.Unlock()
	return r
}

// patience returns a channel that speaks shortly before the deadline of ctx, when waiting
// longer is in vain.
func (g *Gate) patience(ctx context.Context) (<-chan time.Time, func() bool) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return nil, never
	}
	left := deadline.Sub(g.bounds.clock.Now())
	margin := min(max(left/10, minMargin), maxMargin)
	if left <= margin {
		return nil, never
	}
	t := g.bounds.clock.NewTimer(left - margin)
	return t.C(), t.Stop
}

// The answer to a call that waits in vain leaves this long before its deadline: a tenth
// of what was left when it came, within these bounds.
const (
	minMargin = 2 * time.Millisecond
	maxMargin = 50 * time.Millisecond
)

func never() bool { return false }

func (g *Gate) refusal(state uint64, why Reason) *Refusal {
	return &Refusal{Reason: why, Running: int(running(state)), Queued: int(waiting(state))}
}

// Leave ends what Enter has let in.
func (g *Gate) Leave() {
	for {
		s := g.state.Load()
		if waiting(s) > 0 || g.slow.Load() {
			break
		}
		if g.state.CompareAndSwap(s, s-1) {
			if running(s) == 1 && g.slow.Load() {
				g.mu.Lock()
				g.tellQuiet()
				g.mu.Unlock()
			}
			return
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if running(g.state.Load()) >= g.bounds.concurrency.Load() {
		g.pulse.beat(g.bounds.clock.Now())
	} else {
		g.pulse.pause()
		g.slow.Store(len(g.quiet) > 0)
	}
	g.state.Add(^uint64(0))
	g.letIn()
	g.tellQuiet()
}

// admit lets those in for whom there is room now.
func (g *Gate) admit() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.letIn()
}

// letIn wakes, with mu held, as many as there is room for.
func (g *Gate) letIn() {
	for {
		s := g.state.Load()
		if waiting(s) == 0 || running(s) >= g.bounds.concurrency.Load() {
			return
		}
		// While somebody waits nobody else changes the state.
		g.state.Store(s + 1 - oneWaits)
		close(g.line.pop().turn)
	}
}

// tellQuiet wakes, with mu held, those who wait for the end of all.
func (g *Gate) tellQuiet() {
	if g.state.Load() != 0 {
		return
	}
	for _, c := range g.quiet {
		close(c)
	}
	g.quiet = nil
}

// Idle waits until nobody runs or waits.
func (g *Gate) Idle(ctx context.Context) error {
	done := make(chan struct{})
	g.mu.Lock()
	g.quiet = append(g.quiet, done)
	g.slow.Store(true)
	g.tellQuiet()
	g.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
