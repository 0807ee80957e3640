package wheel_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"telford.dev/telford/server/internal/wheel"
)

func TestTimersComeDueInOrder(t *testing.T) {
	t.Parallel()
	w := wheel.New[int64](1000)
	var timers []*wheel.Timer[int64]
	for _, at := range []int64{5000, 1001, 1064, 1000 + 64*64, 1065, 300_000, 20_000_000, 1, 1_000 + 1<<31} {
		timer := &wheel.Timer[int64]{Value: at}
		timers = append(timers, timer)
		w.Set(timer, at)
	}
	if !w.Drop(timers[4]) || w.Drop(timers[4]) {
		t.Fatal("Drop must report a timer that is set, once")
	}
	var got []int64
	note := func(timer *wheel.Timer[int64]) { got = append(got, timer.Value) }
	w.Advance(1000, note)
	if got != nil {
		t.Fatalf("due at once: %v", got)
	}
	w.Advance(20_000_000, note)
	// 1 lay in the past, so it came with the first tick; only that is unordered.
	want := []int64{1, 1001, 1064, 5000, 1000 + 64*64, 300_000, 20_000_000}
	if len(got) > 1 && got[0] == 1001 {
		got[0], got[1] = got[1], got[0]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	if w.Len() != 1 {
		t.Fatalf("%d timers left, want the one beyond the span", w.Len())
	}
}

// TestAgainstModel compares the wheel with a map that is searched whole.
func TestAgainstModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := rapid.Int64Range(0, 1<<40).Draw(t, "start")
		w := wheel.New[int](now)
		timers := make([]wheel.Timer[int], 20)
		model := map[int]int64{}
		for i := range timers {
			timers[i].Value = i
		}
		delay := rapid.OneOf(
			rapid.Int64Range(-5, 70), rapid.Int64Range(0, 5000), rapid.Int64Range(0, 1<<20), rapid.Int64Range(1<<29, 1<<31))
		// Turning a tick at a time costs: few of the steps may be long.
		step := rapid.OneOf(rapid.Int64Range(0, 3), rapid.Int64Range(0, 200), rapid.Int64Range(0, 20_000))
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			i := rapid.IntRange(0, len(timers)-1).Draw(t, "timer")
			switch rapid.IntRange(0, 3).Draw(t, "op") {
			case 0, 1:
				at := now + delay.Draw(t, "delay")
				w.Set(&timers[i], at)
				model[i] = max(at, now+1)
			case 2:
				_, set := model[i]
				delete(model, i)
				if w.Drop(&timers[i]) != set {
					t.Fatalf("Drop of %d: want %v", i, set)
				}
			case 3:
				end := now + step.Draw(t, "step")
				got, want := map[int]bool{}, map[int]bool{}
				last := now
				w.Advance(end, func(timer *wheel.Timer[int]) {
					at := model[timer.Value]
					if at < last {
						t.Fatalf("%d due after a later one", timer.Value)
					}
					last = at
					got[timer.Value] = true
				})
				for i, at := range model {
					if at <= end {
						want[i] = true
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatal(diff)
				}
				for i := range want {
					delete(model, i)
				}
				now = end
			}
			if w.Len() != len(model) {
				t.Fatalf("%d timers set, want %d", w.Len(), len(model))
			}
		}
	})
}

func TestDueMayTouchTheWheel(t *testing.T) {
	t.Parallel()
	w := wheel.New[string](0)
	a, b := &wheel.Timer[string]{Value: "a"}, &wheel.Timer[string]{Value: "b"}
	w.Set(a, 3)
	w.Set(b, 3)
	var got []string
	w.Advance(10, func(timer *wheel.Timer[string]) {
		got = append(got, timer.Value)
		other := a
		if timer == a {
			other = b
		}
		if len(got) == 1 {
			w.Drop(other)
			w.Set(timer, 0)
		}
	})
	if len(got) != 2 || got[0] != got[1] {
		t.Fatalf("due: %v, want one timer twice", got)
	}
	if w.Len() != 0 {
		t.Fatalf("%d timers left", w.Len())
	}
}

func BenchmarkSet(b *testing.B) {
	w := wheel.New[int](0)
	timers := make([]wheel.Timer[int], 100_000)
	for i := range timers {
		w.Set(&timers[i], int64(i%90+1))
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		w.Set(&timers[i%len(timers)], int64(i%90+1))
		i++
	}
}
