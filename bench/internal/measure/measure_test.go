package measure

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBucketsHoldTheirValues(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Uint64Range(0, math.MaxInt64).Draw(t, "nanoseconds")
		low, next := lowest(bucket(v)), lowest(bucket(v)+1)
		if v < low || (v >= next && next > low) {
			t.Fatalf("%d is not in its bucket [%d, %d)", v, low, next)
		}
		if float64(next-low) > float64(v)/60+1 {
			t.Fatalf("the bucket of %d is %d wide", v, next-low)
		}
	})
}

func TestQuantiles(t *testing.T) {
	t.Parallel()
	var a, b Histogram
	if got := a.Quantile(0.5); got != 0 {
		t.Errorf("median of nothing: %v", got)
	}
	for i := 1; i <= 1000; i++ {
		h := &a
		if i%2 == 0 {
			h = &b
		}
		h.Add(time.Duration(i) * time.Microsecond)
	}
	a.Add(-1)
	a.Merge(&b)
	if a.Count() != 1001 {
		t.Fatalf("%d counted, want 1001", a.Count())
	}
	for q, want := range map[float64]float64{0: 0, 0.5: 500, 0.99: 990, 1: 1000} {
		got := float64(a.Quantile(q)) / 1e3
		if math.Abs(got-want) > want*0.02 {
			t.Errorf("quantile %v: %v µs, want %v", q, got, want)
		}
	}
}

func TestLoopCountsAndStops(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	var on, off atomic.Int32
	loop := Loop{Callers: 3, Warmup: 10 * time.Millisecond, For: 50 * time.Millisecond, Measuring: func(m bool) error {
		if m {
			on.Add(1)
		} else {
			off.Add(1)
		}
		return nil
	}, Servers: []int{os.Getpid()}}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	r, err := loop.Run(t.Context(), func(int) (Call, error) {
		return func(ctx context.Context) error {
			calls.Add(1)
			select {
			case <-tick.C:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.PerSecond < 10 || r.PerSecond > 2000 || r.P50 <= 0 || r.P99 < r.P50 {
		t.Errorf("implausible: %+v", r)
	}
	if calls.Load() == 0 || on.Load() != 1 || off.Load() != 1 {
		t.Errorf("%d calls, measuring began %d and ended %d times", calls.Load(), on.Load(), off.Load())
	}
}

func TestLoopEndsAtTheFirstError(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	started := time.Now()
	_, err := Loop{Callers: 2, Warmup: time.Minute, For: time.Minute}.Run(t.Context(), func(caller int) (Call, error) {
		return func(ctx context.Context) error {
			if caller == 1 {
				return broken
			}
			<-ctx.Done()
			return ctx.Err()
		}, nil
	})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "caller 1") {
		t.Errorf("got %v, want the error of caller 1", err)
	}
	if time.Since(started) > 30*time.Second {
		t.Error("the loop went on after the error")
	}
	if _, err := (Loop{Callers: 1}).Run(t.Context(), func(int) (Call, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v, want the error of making the call", err)
	}
}

func TestMedianOfEachFigure(t *testing.T) {
	t.Parallel()
	got := Median([]Result{{PerSecond: 3, P50: 10}, {PerSecond: 1, P50: 30}, {PerSecond: 2, P50: 20}})
	if diff := cmp.Diff(Result{PerSecond: 2, P50: 20}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := Median([]Result{{P99: 1}, {P99: 3}}); got.P99 != 2 {
		t.Errorf("median of two: %v, want 2", got.P99)
	}
	if got := Median(nil); !math.IsNaN(got.P50) {
		t.Errorf("median of none: %v, want NaN", got.P50)
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	rows := Compare("unary, 64 callers, 128 B", "calls", "grpc-go",
		Result{PerSecond: 200_000, P50: 100, P99: 1000, ClientCPU: 2, ServerCPU: 3},
		Result{PerSecond: 100_000, P50: 150, P99: 500, ClientCPU: 5, ServerCPU: 5})
	var ratios []float64
	for _, r := range rows {
		ratios = append(ratios, r.Ratio)
	}
	if diff := cmp.Diff([]float64{2, 1.5, 0.5, 2}, ratios); diff != "" {
		t.Errorf("ratios, -want +got:\n%s", diff)
	}
	if got := Compare("x", "calls", "none", Result{PerSecond: 1}, Result{})[0].Ratio; got != 0 {
		t.Errorf("ratio to nothing is %v, want 0", got)
	}
	var b strings.Builder
	if err := Table(&b, rows); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.String(), "\n"); n != 2 || !strings.Contains(b.String(), "200000 : 100000") {
		t.Errorf("table of %d lines:\n%s", n, b.String())
	}
	path := filepath.Join(t.TempDir(), "report.json")
	if err := WriteJSON(path, rows); err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back []map[string]any
	if err := json.Unmarshal(body, &back); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"case": "unary, 64 callers, 128 B", "metric": "rate", "unit": "calls/s", "telford": 200000.0, "peer": 100000.0,
		"peer_name": "grpc-go", "ratio": 2.0,
	}
	if diff := cmp.Diff(want, back[0]); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestCPUOfProcesses(t *testing.T) {
	t.Parallel()
	if _, err := ProcessCPU(os.Getpid()); err != nil {
		t.Errorf("this process: %v", err)
	}
	if _, err := ProcessCPU(0); err == nil {
		t.Error("process 0 has no CPU time to be read, but no error came")
	}
	if OwnCPU() <= 0 {
		t.Error("this process has used no CPU")
	}
}
