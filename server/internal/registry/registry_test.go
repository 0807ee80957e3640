package registry

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

func wantCode(t testing.TB, err error, code errs.Code, parts ...string) {
	t.Helper()
	if errs.CodeOf(err) != code {
		t.Fatalf("got %v, want code %s", err, code)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Fatalf("%q does not say %q", err, part)
		}
	}
}

func TestRegisterIsStoredBeforeItIsSeen(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx := context.Background()
	rev := b.register("in_1", "payments", func(d *catalog.Declaration) {
		d.Version = "1.2.0"
		d.Metadata = map[string]string{"team": "money"}
	})
	if want := (catalog.Revision{Epoch: 1, N: 1}); rev != want {
		t.Fatalf("revision %v, want %v", rev, want)
	}
	want := &catalog.Instance{
		Namespace: "default", ID: "in_1", Registered: noon, Revision: 1, KeyID: "key_1", Door: "link", Zone: "z1",
		Declaration: catalog.Declaration{
			Service: "payments", Realm: "global", Version: "1.2.0", Scope: catalog.ScopeZone, Weight: 1,
			TTL: 90 * time.Second, Status: catalog.OK, Metadata: map[string]string{"team": "money"},
			Methods: []catalog.Method{{Name: "shop.v1.Payments/Charge", Kind: catalog.Unary}, {Name: "charge", Kind: catalog.Unary}},
		},
	}
	got, err := b.Get("default", "in_1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	if row, ok := b.store.row("default", "in_1"); !ok || row.Service != "payments" || row.Revision != 1 || row.Author != "in_1" {
		t.Fatalf("stored: %+v", row)
	}
	b.store.set(errDisk, false)
	_, _, err = b.Register(ctx, owner("in_2", "payments"), &catalog.Declaration{})
	if !errors.Is(err, errDisk) {
		t.Fatalf("got %v", err)
	}
	if got := ids(b.Candidates("default", "payments")); !cmp.Equal(got, []string{"in_1"}) {
		t.Fatalf("seen although not stored: %v", got)
	}
}

func TestRegisterRefuses(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) { c.MaxInstances = 2 })
	ctx := context.Background()
	b.register("in_1", "payments")
	b.register("in_2", "payments")
	cases := []struct {
		name  string
		owner Owner
		d     *catalog.Declaration
		code  errs.Code
		says  []string
	}{
		{"nothing", owner("in_3", "payments"), nil, errs.InvalidArgument, []string{"no declaration"}},
		{"another service", owner("in_3", "payments"), &catalog.Declaration{Service: "orders"}, errs.PermissionDenied, []string{"payments", "orders"}},
		{"an id of another", owner("in_1", "orders"), &catalog.Declaration{}, errs.AlreadyExists, []string{"in_1", "payments"}},
		{"bad id", owner("in 1", "orders"), &catalog.Declaration{}, errs.InvalidArgument, []string{`"in 1"`}},
		{"bad namespace", Owner{Namespace: "A", Instance: "a", Service: "b"}, &catalog.Declaration{}, errs.InvalidArgument, []string{`"A"`}},
		{"bad service", owner("in_3", "Pay"), &catalog.Declaration{}, errs.InvalidArgument, []string{`"Pay"`}},
		{
			"everything at once", owner("in_1", "payments"),
			&catalog.Declaration{
				Weight: -1, TTL: time.Hour * 48, Endpoints: []catalog.Endpoint{{Kind: "link", Host: "0.0.0.0", Port: 70000}},
				Methods: []catalog.Method{{Name: "a b"}, {Name: "x"}, {Name: "x"}},
			},
			errs.InvalidArgument,
			[]string{"weight -1", "48h", "wildcard", "70000", `"a b"`, `"x" is declared twice`},
		},
		{"full", owner("in_3", "payments"), &catalog.Declaration{}, errs.ResourceExhausted, []string{"2 instances"}},
	}
	for _, c := range cases {
		_, _, err := b.Register(ctx, c.owner, c.d)
		if errs.CodeOf(err) != c.code {
			t.Errorf("%s: got %v, want %s", c.name, err, c.code)
			continue
		}
		for _, part := range c.says {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", c.name, err, part)
			}
		}
	}
	if got := b.Stats(); got.Instances != 2 || got.Registrations != 2 {
		t.Fatalf("%+v", got)
	}
}

func TestWarningsAreReturned(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, warnings, err := b.Register(context.Background(), owner("in_1", "payments"), &catalog.Declaration{
		Endpoints: []catalog.Endpoint{{Kind: "link", Host: "127.0.0.1", Port: 1234}},
		Tags:      []string{"a", "a"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 2 || warnings[0].Declaration != "endpoints" || warnings[1].Value != "a" {
		t.Fatalf("%+v", warnings)
	}
}

func TestRegisteringTheSameAgainWritesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first := b.register("in_1", "payments")
	writes := b.store.count()
	b.clock.Advance(80 * time.Second)
	if rev := b.register("in_1", "payments"); rev != first {
		t.Fatalf("revision %v, want %v", rev, first)
	}
	if b.store.count() != writes {
		t.Fatal("the same declaration was written again")
	}
	b.pass(80 * time.Second)
	if _, err := b.Get("default", "in_1"); err != nil {
		t.Fatalf("the lease did not begin anew: %v", err)
	}
	b.register("in_1", "payments", func(d *catalog.Declaration) { d.Methods = nil })
	i, _ := b.Get("default", "in_1")
	if i.Revision != 2 || len(i.Declaration.Methods) != 0 || !i.Registered.Equal(noon) {
		t.Fatalf("not replaced whole: %+v", i)
	}
	if got := b.ServicesWithMethod("default", "shop.v1.Payments"); len(got) != 0 {
		t.Fatalf("still found by method: %v", got)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx := context.Background()
	b.register("in_1", "payments")
	b.register("in_2", "payments")
	for _, status := range []catalog.Status{catalog.Warning, catalog.Error, catalog.Suspended} {
		if err := b.SetStatus(ctx, "default", "in_1", status, "hm"); err != nil {
			t.Fatal(err)
		}
		i := b.Candidates("default", "payments")[0]
		if i.Declaration.Status != status || i.Declaration.StatusMessage != "hm" {
			t.Fatalf("%+v", i.Declaration)
		}
	}
	n := b.Revision().N
	if err := b.SetStatus(ctx, "default", "in_1", catalog.Suspended, "hm"); err != nil || b.Revision().N != n {
		t.Fatalf("setting the same changed something: %v", err)
	}
	if err := b.SetStatus(ctx, "default", "in_1", catalog.Offline, ""); err != nil {
		t.Fatal(err)
	}
	if got := ids(b.Candidates("default", "payments")); !cmp.Equal(got, []string{"in_2"}) {
		t.Fatalf("candidates %v", got)
	}
	if got := ids(b.List(Filter{Namespace: "default", Service: "payments"})); !cmp.Equal(got, []string{"in_1", "in_2"}) {
		t.Fatalf("listed %v", got)
	}
	if err := b.SetStatus(ctx, "default", "in_2", catalog.Offline, ""); err != nil {
		t.Fatal(err)
	}
	if got := b.Services("default"); len(got) != 0 {
		t.Fatalf("services %v", got)
	}
	// The status is stored.
	b.open()
	if i, _ := b.Get("default", "in_2"); i.Declaration.Status != catalog.Offline {
		t.Fatalf("%+v", i)
	}
	wantCode(t, b.SetStatus(ctx, "default", "in_1", "FINE", ""), errs.InvalidArgument, "FINE")
	wantCode(t, b.SetStatus(ctx, "default", "in_9", catalog.OK, ""), errs.NotFound, "in_9")
	wantCode(t, b.SetStatus(ctx, "default", "in_1", catalog.OK, strings.Repeat("x", 2000)), errs.InvalidArgument, "2000")
}

func TestDrain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx := WithAuthor(context.Background(), "operator:ann")
	b.register("in_1", "payments")
	draining := func() bool { return b.Candidates("default", "payments")[0].Draining }
	if !b.Leaving("default", "in_1") || !draining() {
		t.Fatal("not leaving")
	}
	b.register("in_1", "payments")
	if draining() {
		t.Fatal("still leaving after it registered again")
	}
	if err := b.Drain(ctx, "default", "in_1", true); err != nil || !draining() {
		t.Fatalf("not draining: %v", err)
	}
	if row, _ := b.store.row("default", "in_1"); !row.Draining || row.Author != "operator:ann" || row.Revision != 2 {
		t.Fatalf("stored: %+v", row)
	}
	b.open()
	b.register("in_1", "payments", func(d *catalog.Declaration) { d.Version = "2" })
	if !draining() {
		t.Fatal("the operator's word was lost")
	}
	if err := b.Drain(ctx, "default", "in_1", false); err != nil || draining() {
		t.Fatalf("still draining: %v", err)
	}
	wantCode(t, b.Drain(ctx, "default", "in_2", true), errs.NotFound, "in_2")
	if b.Leaving("default", "in_2") {
		t.Fatal("leaving although not registered")
	}
}

func TestDeregisterLeavesATombstone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx := context.Background()
	b.register("in_1", "payments")
	b.register("in_2", "orders")
	if err := b.Deregister(ctx, "default", "in_1", catalog.Operator); err != nil {
		t.Fatal(err)
	}
	b.clock.Advance(time.Second)
	if err := b.Deregister(ctx, "default", "in_2", catalog.Drained); err != nil {
		t.Fatal(err)
	}
	wantCode(t, b.Deregister(ctx, "default", "in_1", catalog.Operator), errs.NotFound, "in_1")
	wantCode(t, b.Deregister(ctx, "default", "in_1", catalog.Unwatched), errs.InvalidArgument, "unwatched")
	_, err := b.Get("default", "in_1")
	wantCode(t, err, errs.NotFound, "in_1", "default")
	want := []catalog.Tombstone{
		{Namespace: "default", ID: "in_1", Service: "payments", Reason: catalog.Operator, At: noon},
		{Namespace: "default", ID: "in_2", Service: "orders", Reason: catalog.Drained, At: noon.Add(time.Second)},
	}
	got, err := b.Tombstones(ctx, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	got, _ = b.Tombstones(ctx, Filter{Service: "orders"})
	if diff := cmp.Diff(want[1:], got); diff != "" {
		t.Fatal(diff)
	}
	// One that came back is not gone.
	b.register("in_1", "payments")
	got, _ = b.Tombstones(ctx, Filter{Namespace: "default"})
	if diff := cmp.Diff(want[1:], got); diff != "" {
		t.Fatal(diff)
	}
	b.clock.Advance(25 * time.Hour)
	b.purge(ctx, b.clock.Now())
	if got, _ = b.Tombstones(ctx, Filter{}); len(got) != 0 || len(b.store.stones) != 0 {
		t.Fatalf("kept too long: %v", got)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.register("in_2", "payments", func(d *catalog.Declaration) { d.Tags = []string{"eu"} })
	b.register("in_1", "payments")
	b.register("in_3", "orders", func(d *catalog.Declaration) { d.Tags = []string{"eu", "x"}; d.Status = catalog.Suspended })
	cases := []struct {
		f    Filter
		want []string
	}{
		{Filter{}, []string{"in_3", "in_1", "in_2"}},
		{Filter{Namespace: "other"}, []string{}},
		{Filter{Namespace: "default", Service: "payments"}, []string{"in_1", "in_2"}},
		{Filter{Namespace: "default", Service: "none"}, []string{}},
		{Filter{Service: "orders"}, []string{"in_3"}},
		{Filter{Tag: "eu"}, []string{"in_3", "in_2"}},
		{Filter{Tag: "eu", Status: catalog.OK}, []string{"in_2"}},
	}
	for _, c := range cases {
		if diff := cmp.Diff(c.want, ids(b.List(c.f))); diff != "" {
			t.Errorf("%+v: %s", c.f, diff)
		}
	}
	if diff := cmp.Diff([]string{"orders", "payments"}, b.ServicesWithMethod("default", "shop.v1.Payments")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"orders", "payments"}, b.Services("default")); diff != "" {
		t.Error(diff)
	}
}

func TestSharedMemory(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	big := func(d *catalog.Declaration) { d.Descriptors = []byte(strings.Repeat("d", 1000)) }
	b.register("in_1", "payments", big)
	b.register("in_2", "payments", big)
	check := func() {
		t.Helper()
		c := b.Candidates("default", "payments")
		if &c[0].Declaration.Descriptors[0] != &c[1].Declaration.Descriptors[0] || &c[0].Declaration.Methods[0] != &c[1].Declaration.Methods[0] {
			t.Fatal("instances that say the same keep two copies of it")
		}
	}
	check()
	b.open()
	check()
}

func TestStoreErrors(t *testing.T) {
	t.Parallel()
	cases := []struct {
		err        error
		code       errs.Code
		notStarted bool
	}{
		{tx.ErrOutcomeUnknown, errs.Unavailable, false},
		{tx.ErrFull, errs.ResourceExhausted, true},
		{tx.ErrReadOnly, errs.FailedPrecondition, true},
		{tx.ErrClosed, errs.Unavailable, true},
		{context.DeadlineExceeded, errs.DeadlineExceeded, false},
		{errDisk, errs.Internal, false},
	}
	for _, c := range cases {
		b := newBench(t)
		b.register("in_1", "payments")
		b.store.set(c.err, false)
		_, _, err := b.Register(context.Background(), owner("in_2", "payments"), &catalog.Declaration{})
		for _, err := range []error{
			err,
			b.SetStatus(context.Background(), "default", "in_1", catalog.Error, ""),
			b.Drain(context.Background(), "default", "in_1", true),
			b.Deregister(context.Background(), "default", "in_1", catalog.Operator),
		} {
			e := errs.From(err)
			if e.Code != c.code || e.NotStarted != c.notStarted || !errors.Is(err, c.err) || e.Operation == "" {
				t.Errorf("%v: got %#v", c.err, e)
			}
		}
		if got := b.List(Filter{}); len(got) != 1 || got[0].Revision != 1 {
			t.Errorf("%v: memory changed: %v", c.err, got)
		}
		_, err = Open(context.Background(), b.cfg)
		if !errors.Is(err, c.err) {
			t.Errorf("open: %v", err)
		}
	}
}

func TestOpenDropsWhatItCannotRead(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.register("in_1", "payments")
	b.register("in_2", "payments")
	b.store.rows[key{"default", "in_1"}] = Row{Namespace: "default", ID: "in_1", Service: "payments", Declaration: []byte("{")}
	b.open()
	if got := ids(b.List(Filter{})); !cmp.Equal(got, []string{"in_2"}) {
		t.Fatalf("listed %v", got)
	}
	if got, _ := b.Tombstones(context.Background(), Filter{}); len(got) != 1 || got[0].ID != "in_1" {
		t.Fatalf("tombstones %v", got)
	}
	if _, ok := b.store.row("default", "in_1"); ok {
		t.Fatal("the row is still there")
	}
}

func TestOpenValidates(t *testing.T) {
	t.Parallel()
	_, err := Open(context.Background(), Config{})
	wantCode(t, err, errs.InvalidArgument, "storage")
	m := newMemory()
	_, err = Open(context.Background(), Config{DB: m, Storage: m, TTL: time.Millisecond})
	wantCode(t, err, errs.InvalidArgument, "1ms")
}

// TestOneWriterAnInstance has many services ask for one id at once: one gets it.
func TestOneWriterAnInstance(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) { c.Clock = nil })
	b.store.twice = true
	b.store.gate = make(chan struct{})
	services := []string{"a", "b", "c", "d"}
	results := make([]error, len(services))
	var wg sync.WaitGroup
	for i, service := range services {
		wg.Go(func() {
			_, _, results[i] = b.Register(context.Background(), owner("in_1", service), &catalog.Declaration{})
		})
	}
	// One write is let through; whoever comes after sees it.
	b.store.gate <- struct{}{}
	wg.Wait()
	won := 0
	for _, err := range results {
		if err == nil {
			won++
			continue
		}
		wantCode(t, err, errs.AlreadyExists, "in_1")
	}
	if won != 1 || len(b.List(Filter{})) != 1 {
		t.Fatalf("%d services got the id", won)
	}
	if len(b.keys.held) != 0 {
		t.Fatalf("%d locks are left", len(b.keys.held))
	}
}

func TestWaitingForAnInstanceEndsWithTheContext(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	unlock, err := b.keys.lock(context.Background(), key{"default", "in_1"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, _, err = b.Register(ctx, owner("in_1", "payments"), &catalog.Declaration{})
	wantCode(t, err, errs.Canceled)
	unlock()
	b.register("in_1", "payments")
}

func TestStartAndStopInAnyOrder(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := newBench(t)
	for range 2 {
		if err := b.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	b.stop()
	b.stop()
	wantCode(t, b.Start(ctx), errs.Unavailable)
	_, _, err := b.Register(ctx, owner("in_1", "payments"), &catalog.Declaration{})
	wantCode(t, err, errs.Unavailable, "stopped")
	c := newBench(t)
	c.stop()
	wantCode(t, c.Start(ctx), errs.Unavailable)
}
