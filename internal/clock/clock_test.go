package clock_test

import (
	"testing"
	"time"

	"telford.dev/telford/internal/clock"
)

func TestManualFiresInOrder(t *testing.T) {
	t.Parallel()
	start := time.Unix(1000, 0)
	c := clock.NewManual(start)
	var got []time.Duration
	note := func() { got = append(got, c.Now().Sub(start)) }
	c.AfterFunc(3*time.Second, note)
	c.AfterFunc(time.Second, func() { note(); c.AfterFunc(time.Second, note) })
	stopped := c.AfterFunc(2*time.Second, note)
	if !stopped.Stop() || stopped.Stop() {
		t.Fatal("Stop must report a pending timer once")
	}
	timer := c.NewTimer(time.Minute)
	c.Advance(5 * time.Second)
	want := []time.Duration{time.Second, 2 * time.Second, 3 * time.Second}
	if len(got) != len(want) {
		t.Fatalf("fired at %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("fired at %v, want %v", got, want)
		}
	}
	select {
	case <-timer.C():
		t.Fatal("fired too early")
	default:
	}
	c.Set(start.Add(2 * time.Minute))
	<-timer.C()
	c.Set(start)
	if !c.Now().Equal(start) || c.Pending() != 0 {
		t.Fatalf("now %v, %d pending", c.Now(), c.Pending())
	}
}

func TestManualLeapFiresOnce(t *testing.T) {
	t.Parallel()
	start := time.Unix(1000, 0)
	c := clock.NewManual(start)
	var got []time.Duration
	var again func()
	again = func() {
		got = append(got, c.Now().Sub(start))
		c.AfterFunc(time.Second, again)
	}
	c.AfterFunc(time.Second, again)
	late := c.NewTimer(time.Hour)
	c.Leap(time.Minute)
	if len(got) != 1 || got[0] != time.Minute {
		t.Errorf("fired at %v, want once after a minute", got)
	}
	select {
	case <-late.C():
		t.Error("fired too early")
	default:
	}
	c.Leap(time.Hour)
	if at := <-late.C(); !at.Equal(start.Add(time.Hour + time.Minute)) {
		t.Errorf("fired at %v", at)
	}
	if len(got) != 2 || c.Pending() != 1 {
		t.Errorf("fired at %v, %d pending", got, c.Pending())
	}
}
