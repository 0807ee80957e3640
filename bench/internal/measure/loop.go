package measure

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Call does the thing measured, once.
type Call func(ctx context.Context) error

// Loop says how to measure.
type Loop struct {
	Callers int
	Warmup  time.Duration
	For     time.Duration
	// Servers are the processes whose CPU time is part of a call.
	Servers []int
	// Measuring is called, when set, as the warm-up ends and again at the end.
	Measuring func(on bool) error
}

// Result is what one loop found. Times are in microseconds.
type Result struct {
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"p50_us"`
	P99       float64 `json:"p99_us"`
	ClientCPU float64 `json:"client_cpu_us"`
	ServerCPU float64 `json:"server_cpu_us"`
	// Foreign is how many cores other processes took meanwhile.
	Foreign float64 `json:"foreign_cores"`
}

// Phases of a loop.
const (
	warming int32 = iota
	measuring
	stopping
)

// Run calls from as many goroutines as there are callers, each anew as soon as its
// answer came. newCall makes the call of one caller. The first error ends the loop.
func (l Loop) Run(ctx context.Context, newCall func(caller int) (Call, error)) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	calls := make([]Call, l.Callers)
	for i := range calls {
		call, err := newCall(i)
		if err != nil {
			return Result{}, fmt.Errorf("caller %d: %w", i, err)
		}
		calls[i] = call
	}
	var (
		phase      atomic.Int32
		wg         sync.WaitGroup
		histograms = make([]*Histogram, l.Callers)
	)
	for i, call := range calls {
		histograms[i] = new(Histogram)
		wg.Go(func() {
			last := time.Now()
			for {
				if err := call(ctx); err != nil {
					if phase.Load() != stopping {
						cancel(fmt.Errorf("caller %d: %w", i, err))
					}
					return
				}
				now := time.Now()
				switch phase.Load() {
				case measuring:
					histograms[i].Add(now.Sub(last))
				case stopping:
					return
				}
				last = now
			}
		})
	}
	result, err := l.watch(ctx, &phase)
	phase.Store(stopping)
	if l.Measuring != nil {
		err = errors.Join(err, l.Measuring(false))
	}
	if err != nil {
		cancel(nil)
		wg.Wait()
		return Result{}, err
	}
	wg.Wait()
	return result.finish(histograms), nil
}

// window is what one measurement spans.
type window struct {
	elapsed, own, servers, machine time.Duration
}

// watch lets the warm-up and the measurement pass.
func (l Loop) watch(ctx context.Context, phase *atomic.Int32) (window, error) {
	if err := pause(ctx, l.Warmup); err != nil {
		return window{}, err
	}
	if l.Measuring != nil {
		if err := l.Measuring(true); err != nil {
			return window{}, err
		}
	}
	before, err := l.usage()
	if err != nil {
		return window{}, err
	}
	started := time.Now()
	phase.Store(measuring)
	if err := pause(ctx, l.For); err != nil {
		return window{}, err
	}
	elapsed := time.Since(started)
	after, err := l.usage()
	if err != nil {
		return window{}, err
	}
	return window{elapsed, after.own - before.own, after.servers - before.servers, after.machine - before.machine}, nil
}

func (l Loop) usage() (w window, err error) {
	w.own = OwnCPU()
	for _, pid := range l.Servers {
		used, err := ProcessCPU(pid)
		if err != nil {
			return w, err
		}
		w.servers += used
	}
	w.machine, err = machineCPU()
	return w, err
}

func (w window) finish(histograms []*Histogram) Result {
	var all Histogram
	for _, h := range histograms {
		all.Merge(h)
	}
	n := float64(max(all.Count(), 1))
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	return Result{
		PerSecond: float64(all.Count()) / w.elapsed.Seconds(),
		P50:       us(all.Quantile(0.50)),
		P99:       us(all.Quantile(0.99)),
		ClientCPU: us(w.own) / n,
		ServerCPU: us(w.servers) / n,
		Foreign:   max(0, (w.machine-w.own-w.servers).Seconds()/w.elapsed.Seconds()),
	}
}

// pause waits; the error is why the loop broke off.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
