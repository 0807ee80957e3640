package registry

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/server/internal/alarm"
	"telford.dev/telford/server/internal/tx"
)

// fleet registers instances of one service, named prefix0, prefix1 and so on.
func (b *bench) fleet(namespace, prefix string, n int) {
	b.t.Helper()
	for i := range n {
		o := owner(fmt.Sprint(prefix, i), prefix)
		o.Namespace = namespace
		if _, _, err := b.Register(context.Background(), o, &catalog.Declaration{}); err != nil {
			b.t.Fatal(err)
		}
	}
}

// sessions begins or ends the sessions of instances from to below to.
func (b *bench) sessions(namespace, prefix string, from, to int, on bool) {
	for i := from; i < to; i++ {
		b.Reach(namespace, fmt.Sprint(prefix, i), on)
	}
}

func (b *bench) listed(namespace string) int { return len(b.List(Filter{Namespace: namespace})) }

// seconds moves the clock step by step, as a running registry sees it.
func (b *bench) seconds(n int) {
	for range n {
		b.pass(time.Second)
	}
}

func newGuarded(t fataler) (*bench, *alarm.Board) {
	var board *alarm.Board
	b := newBench(t, func(c *Config) {
		board = alarm.New(c.Clock, nil)
		c.Alarms = board
	})
	return b, board
}

func TestMassExpiryIsHeldUntilEnoughAreBack(t *testing.T) {
	t.Parallel()
	b, board := newGuarded(t)
	b.fleet("default", "w", 60)
	b.fleet("other", "o", 60)
	b.sessions("default", "w", 0, 60, true)
	b.sessions("other", "o", 0, 60, true)
	b.seconds(100)
	b.sessions("default", "w", 0, 25, false) // more than a third of one namespace, not of all
	w := b.Watch("default", nil, catalog.Revision{})
	defer w.Close()
	next(t, w)
	b.seconds(200)
	if n := b.listed("default"); n != 60 {
		t.Fatalf("%d of 60 are listed", n)
	}
	silent(t, w)
	alarms := board.List()
	if len(alarms) != 1 || alarms[0].Code != alarm.MassExpiry || alarms[0].Severity != alarm.Critical ||
		!strings.Contains(alarms[0].Message, `25 of 60 instances`) || !strings.Contains(alarms[0].Message, `telford services expire --confirm`) {
		t.Fatalf("alarms %+v", alarms)
	}
	held := b.Held()
	if len(held) != 1 || held[0].Namespace != "default" || held[0].Instances != 25 || held[0].Registered != 60 ||
		held[0].Resumes.Sub(held[0].Since) != time.Hour {
		t.Fatalf("held %+v", held)
	}
	if b.Candidates("default", "w")[0].Reachable {
		t.Fatal("one that is held is given calls")
	}
	// Other namespaces, force and new instances are as ever.
	b.sessions("other", "o", 0, 5, false)
	if err := b.Deregister(context.Background(), "default", "w0", catalog.Operator); err != nil {
		t.Fatal(err)
	}
	b.seconds(100)
	if n := b.listed("other"); n != 55 {
		t.Fatalf("%d of the other namespace are listed, want 55", n)
	}
	b.fleet("default", "new", 1)
	// Most are back; the few that are not go.
	b.sessions("default", "w", 1, 19, true)
	b.seconds(10)
	if n := b.listed("default"); n != 54 {
		t.Fatalf("%d are listed, want 54", n)
	}
	if len(board.List()) != 0 || len(b.Held()) != 0 {
		t.Fatalf("still up: %+v", board.List())
	}
	b.sessions("default", "new", 0, 1, true)
	b.seconds(200)
	if n := b.listed("default"); n != 54 || len(b.keeper.guards) != 0 {
		t.Fatalf("%d are listed, %d guards left", n, len(b.keeper.guards))
	}
}

func TestMassExpiryOfManySmallNamespaces(t *testing.T) {
	t.Parallel()
	b, board := newGuarded(t)
	for i := range 10 {
		ns := fmt.Sprint("ns", i)
		b.fleet(ns, "w", 10)
		b.sessions(ns, "w", 0, 10, true)
		b.sessions(ns, "w", 0, 4, false)
	}
	b.seconds(120)
	if n := len(b.List(Filter{})); n != 100 {
		t.Fatalf("%d of 100 are listed", n)
	}
	held := b.Held()
	if len(held) != 10 || held[0].Namespace != "ns0" || held[0].Instances != 4 || held[0].Resumes.IsZero() {
		t.Fatalf("held %+v", held)
	}
	if m := board.List()[0].Message; !strings.Contains(m, "40 of 100") || !strings.Contains(m, "and 7 more") {
		t.Fatal(m)
	}
	// An operator knows about one of them.
	if n := b.ConfirmExpiry("ns3"); n != 4 {
		t.Fatalf("confirmed %d", n)
	}
	b.seconds(1)
	if b.listed("ns3") != 6 || len(b.List(Filter{})) != 96 || len(b.Held()) != 9 {
		t.Fatalf("%d are listed, %d in ns3", len(b.List(Filter{})), b.listed("ns3"))
	}
}

// TestLeasesThatEndOneAfterAnotherAreHeldInTime: the first of many is enough to see it.
func TestLeasesThatEndOneAfterAnotherAreHeldInTime(t *testing.T) {
	t.Parallel()
	b, board := newGuarded(t)
	b.fleet("default", "w", 60)
	b.sessions("default", "w", 0, 60, true)
	for i := range 50 { // the sessions break within half a minute
		b.sessions("default", "w", i, i+1, false)
		if i%2 == 0 {
			b.seconds(1)
		}
	}
	b.seconds(120)
	if n := b.listed("default"); n != 60 || len(board.List()) != 1 {
		t.Fatalf("%d of 60 are listed, alarms %v", n, board.List())
	}
}

func TestConfirmedExpiry(t *testing.T) {
	t.Parallel()
	b, board := newGuarded(t)
	if n := b.ConfirmExpiry(""); n != 0 {
		t.Fatalf("confirmed %d of none", n)
	}
	b.fleet("default", "w", 60)
	b.sessions("default", "w", 30, 60, true)
	b.seconds(95)
	b.sessions("default", "w", 30, 50, false)
	if n := b.ConfirmExpiry("other"); n != 0 {
		t.Fatalf("confirmed %d of another namespace", n)
	}
	if n := b.ConfirmExpiry(""); n != 30 {
		t.Fatalf("confirmed %d, want 30", n)
	}
	b.seconds(2)
	if n := b.listed("default"); n != 30 || len(board.List()) != 0 {
		t.Fatalf("%d are listed, alarms %v", n, board.List())
	}
	// The word holds for those that follow, then no more.
	b.seconds(88)
	b.seconds(10)
	if n := b.listed("default"); n != 30 {
		t.Fatalf("%d are listed: the word has held for longer than a lease", n)
	}
	if n := b.ConfirmExpiry("default"); n != 20 {
		t.Fatalf("confirmed %d, want 20", n)
	}
	b.seconds(2)
	if n := b.listed("default"); n != 10 {
		t.Fatalf("%d are listed, want 10", n)
	}
}

func TestMassExpiryGoesOnSlowlyInTheEnd(t *testing.T) {
	t.Parallel()
	b, board := newGuarded(t)
	b.fleet("default", "w", 90)
	for range 90 + 3590 {
		b.pass(time.Second)
	}
	if n := b.listed("default"); n != 90 {
		t.Fatalf("%d of 90 are listed within the hour", n)
	}
	b.seconds(75)
	n := b.listed("default")
	if n != 87 && n != 86 {
		t.Fatalf("%d are listed after the first minute, want three less", n)
	}
	if h := b.Held(); len(h) != 1 || !h[0].Resumes.IsZero() {
		t.Fatalf("held %+v", h)
	}
	if m := board.List()[0].Message; !strings.Contains(m, "one after another") {
		t.Fatal(m)
	}
	b.seconds(30 * 60)
	if n := b.listed("default"); n != 0 || len(board.List()) != 0 || len(b.keeper.held) != 0 {
		t.Fatalf("%d are left, alarms %v", n, board.List())
	}
}

// TestRestartWithManyInstances: a runtime that was away takes nobody for gone.
func TestRestartWithManyInstances(t *testing.T) {
	t.Parallel()
	const all = 2000
	b, board := newGuarded(t)
	b.store.flat = true
	b.fleet("default", "w", all)
	b.sessions("default", "w", 0, all, true)
	b.clock.Advance(3 * time.Hour)
	b.open()
	w := b.Watch("default", nil, catalog.Revision{})
	defer w.Close()
	next(t, w)
	b.seconds(300)
	if n := b.listed("default"); n != all || len(board.List()) != 1 {
		t.Fatalf("%d of %d are listed, alarms %v", n, all, board.List())
	}
	silent(t, w)
	b.sessions("default", "w", 0, all-2, true)
	b.seconds(10)
	if n := b.listed("default"); n != all-2 || len(board.List()) != 0 {
		t.Fatalf("%d are listed, alarms %v", n, board.List())
	}
	gone := 0
	for range 10 {
		if u := w.collect(); u != nil {
			gone += len(u.Removals)
		}
	}
	if gone != 2 {
		t.Fatalf("%d were reported gone, want the two that are", gone)
	}
}

// TestStoreAwayIsNoMassExpiry: ends that cannot be written are not counted.
func TestStoreAwayIsNoMassExpiry(t *testing.T) {
	t.Parallel()
	b, board := newGuarded(t)
	b.fleet("default", "w", 10)
	b.store.set(errDisk, false)
	b.seconds(400)
	if n := b.listed("default"); n != 10 || len(board.List()) != 0 {
		t.Fatalf("%d are listed, alarms %v", n, board.List())
	}
	b.store.set(tx.ErrBusy, false)
	b.seconds(10)
	b.store.set(nil, false)
	b.seconds(10)
	if n := b.listed("default"); n != 0 {
		t.Fatalf("%d are left", n)
	}
}

// TestHeldLeasesAreNeverLost: whatever happens, an instance without signs of life goes in
// the end, one with them stays, and nothing is left over.
func TestHeldLeasesAreNeverLost(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b, board := newGuarded(t)
		const all = 40
		b.fleet("default", "w", all)
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			from := rapid.IntRange(0, all).Draw(t, "from")
			to := rapid.IntRange(from, all).Draw(t, "to")
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				b.sessions("default", "w", from, to, true)
			case 1:
				b.sessions("default", "w", from, to, false)
			case 2:
				for i := from; i < to; i++ {
					b.Touch("default", fmt.Sprint("w", i))
				}
			case 3:
				b.ConfirmExpiry("default")
			case 4:
				b.fleet("default", "w", to)
			case 5:
				_ = b.Reload(context.Background())
			}
			for range rapid.IntRange(0, 8).Draw(t, "pass") {
				b.pass(17 * time.Second)
			}
		}
		alive := 0
		for _, i := range b.List(Filter{}) {
			if i.Reachable {
				alive++
			}
		}
		for range 500 {
			b.pass(17 * time.Second)
		}
		if n := b.listed("default"); n != alive {
			t.Fatalf("%d are listed, %d of them live", n, alive)
		}
		if n := b.leases.Len(); n != alive || len(b.keeper.held) != 0 || len(b.keeper.guards) != 0 || len(board.List()) != 0 {
			t.Fatalf("%d leases of %d, %d held, guards %v, alarms %v", n, alive, len(b.keeper.held), b.keeper.guards, board.List())
		}
	})
}
