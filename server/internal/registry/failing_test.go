package registry

import (
	"context"
	"testing"
	"time"

	"pgregory.net/rapid"

	"telford.dev/telford/internal/catalog"
)

// failing returns the published end of the hint of an instance, from now; 0: none.
func (b *bench) failing(id string) time.Duration {
	b.t.Helper()
	i, err := b.Get("default", id)
	if err != nil {
		b.t.Fatal(err)
	}
	if i.FailingUntil.IsZero() {
		return 0
	}
	return i.FailingUntil.Sub(b.clock.Now())
}

func (b *bench) fail(id string, d time.Duration) {
	b.SetFailing("default", id, b.clock.Now().Add(d))
}

// lasting is a lease that outlives the test.
func lasting(d *catalog.Declaration) { d.TTL = time.Hour }

func TestFailingIsPublishedAndPasses(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.register("in_1", "payments")
	b.Reach("default", "in_1", true)
	w := b.Watch("default", []string{"payments"}, catalog.Revision{})
	defer w.Close()
	next(t, w)
	writes := b.store.count()

	b.fail("in_1", time.Minute)
	u := next(t, w)
	if len(u.Upserts) != 1 || !u.Upserts[0].FailingUntil.Equal(noon.Add(time.Minute)) || !u.Upserts[0].Reachable {
		t.Fatalf("told %+v", u)
	}
	if got := b.Candidates("default", "payments")[0].FailingUntil; !got.Equal(noon.Add(time.Minute)) {
		t.Fatalf("the candidate fails until %v", got)
	}
	b.pass(59 * time.Second)
	silent(t, w)
	b.pass(2 * time.Second)
	if u := next(t, w); len(u.Upserts) != 1 || !u.Upserts[0].FailingUntil.IsZero() {
		t.Fatalf("after its end: %+v", u)
	}
	b.fail("in_9", time.Minute) // nobody
	b.fail("in_1", -time.Minute)
	silent(t, w)
	if got := b.store.count(); got != writes {
		t.Fatalf("%d writes for hints", got-writes)
	}
}

func TestFailingIsPublishedOnlyWhenItMoves(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.register("in_1", "payments", lasting)
	b.Reach("default", "in_1", true)
	before := b.Revision()
	for range 100 { // many see the same at once
		b.fail("in_1", time.Minute)
	}
	for range 29 {
		b.pass(time.Second)
		b.fail("in_1", time.Minute)
	}
	if got := b.Revision().N - before.N; got != 1 {
		t.Fatalf("published %d times, want once", got)
	}
	b.fail("in_1", 10*time.Second) // never shortened
	b.pass(2 * time.Second)
	b.fail("in_1", time.Minute)
	if got := b.failing("in_1"); got != time.Minute {
		t.Fatalf("half of it has passed, and it is shown to end in %s", got)
	}
	b.pass(20 * time.Second)
	b.fail("in_1", time.Minute)
	if got := b.failing("in_1"); got != 40*time.Second {
		t.Fatalf("shown to end in %s", got)
	}
	b.pass(41 * time.Second)
	if got := b.failing("in_1"); got != 19*time.Second {
		t.Fatalf("the rest of the hint is not shown: it ends in %s, want 19s", got)
	}
	b.pass(20 * time.Second)
	if got := b.failing("in_1"); got != 0 {
		t.Fatalf("has not passed: %s", got)
	}
	b.fail("in_1", 24*time.Hour)
	if got := b.failing("in_1"); got != maxFailing {
		t.Fatalf("a hint of a day ends in %s, want %s", got, maxFailing)
	}
	b.SetFailing("default", "in_1", time.Time{})
	if got := b.failing("in_1"); got != 0 || b.hints.Len() != 0 {
		t.Fatalf("not taken back: ends in %s, %d timers", got, b.hints.Len())
	}
}

func TestFailingEndsWhenTheInstanceIsBack(t *testing.T) {
	t.Parallel()
	back := map[string]func(b *bench){
		"the same declaration": func(b *bench) { b.register("in_1", "payments") },
		"another declaration":  func(b *bench) { b.register("in_1", "payments", func(d *catalog.Declaration) { d.Version = "2" }) },
		"a session":            func(b *bench) { b.Reach("default", "in_1", true) },
		// What cannot be reached from here may be called directly by others.
		"a lost session": func(b *bench) {
			b.Reach("default", "in_1", false)
			b.fail("in_1", time.Minute)
		},
		"a word of all's well": func(b *bench) { b.SetFailing("default", "in_1", b.clock.Now()) },
		"gone and there again": func(b *bench) {
			if err := b.Deregister(context.Background(), "default", "in_1", catalog.Operator); err != nil {
				b.t.Fatal(err)
			}
			b.register("in_1", "payments")
		},
		"a restart of the runtime": func(b *bench) { b.open() },
	}
	for name, f := range back {
		b := newBench(t)
		b.register("in_1", "payments")
		b.Reach("default", "in_1", true)
		b.fail("in_1", time.Minute)
		f(b)
		if got := b.failing("in_1"); got != 0 || b.hints.Len() != 0 {
			t.Errorf("%s: still failing for %s, %d timers", name, got, b.hints.Len())
		}
	}
	kept := map[string]func(b *bench){
		"leaving":        func(b *bench) { b.Leaving("default", "in_1") },
		"another status": func(b *bench) { _ = b.SetStatus(context.Background(), "default", "in_1", catalog.Warning, "slow") },
		"drain":          func(b *bench) { _ = b.Drain(context.Background(), "default", "in_1", true) },
		"reload":         func(b *bench) { _ = b.Reload(context.Background()) },
	}
	for name, f := range kept {
		b := newBench(t)
		b.register("in_1", "payments")
		b.Reach("default", "in_1", true)
		b.fail("in_1", time.Minute)
		f(b)
		if got := b.failing("in_1"); got != time.Minute {
			t.Errorf("%s: fails for %s, want still 1m0s", name, got)
		}
	}
}

// TestFailingIsNeverShownLongAfterItsEnd: whatever is reported and when, what is shown
// never outlasts the reports by more than a tick, and a report within the last half is
// never lost.
func TestFailingIsNeverShownLongAfterItsEnd(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := newBench(t)
		b.register("in_1", "payments", lasting)
		b.Reach("default", "in_1", true)
		var until time.Time
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "report") {
				d := time.Duration(rapid.IntRange(1, 120).Draw(t, "for")) * time.Second
				b.fail("in_1", d)
				if end := b.clock.Now().Add(d); end.After(until) {
					until = end
					if shown := b.failing("in_1"); shown < d/2 {
						t.Fatalf("shown for %s just after a report of %s", shown, d)
					}
				}
			}
			b.pass(time.Duration(rapid.IntRange(0, 50).Draw(t, "pass")) * time.Second)
			shown, rest := b.failing("in_1"), until.Sub(b.clock.Now())
			switch {
			case rest <= 0 && shown != 0:
				t.Fatalf("shown for %s more although all reports have passed", shown)
			case rest > 0 && (shown <= 0 || shown > rest):
				t.Fatalf("shown for %s, reported for %s", shown, rest)
			}
		}
	})
}

// TestMethodsAreSharedOnlyWhenTheySayTheSame: the memory of one instance is not given to
// another that limits its methods otherwise.
func TestMethodsAreSharedOnlyWhenTheySayTheSame(t *testing.T) {
	t.Parallel()
	for id, m := range map[string]catalog.Method{
		"in_2": {Name: "charge", AllowedCallers: []string{"orders"}},
		"in_3": {Name: "charge", Timeout: time.Second},
		"in_4": {Name: "charge", NotRetryable: true},
		"in_5": {Name: "charge", Limits: []catalog.Limit{{Concurrency: 1}}},
	} {
		b := newBench(t)
		b.register("in_1", "payments", func(d *catalog.Declaration) { d.Methods = []catalog.Method{{Name: "charge"}} })
		b.register(id, "payments", func(d *catalog.Declaration) { d.Methods = []catalog.Method{m} })
		i, err := b.Get("default", id)
		if err != nil {
			t.Fatal(err)
		}
		if got := i.Declaration.Methods[0]; !sameMethod(got, catalog.Method{
			Name: "charge", Kind: got.Kind, ContentTypes: got.ContentTypes,
			AllowedCallers: m.AllowedCallers, Timeout: m.Timeout, NotRetryable: m.NotRetryable, Limits: m.Limits,
		}) {
			t.Errorf("%s is registered with the methods of another: %+v", id, got)
		}
	}
}
