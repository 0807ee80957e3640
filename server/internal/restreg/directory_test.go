package restreg_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/restreg"
)

func TestLife(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, b *bench) {
		ctx := t.Context()
		in := restreg.Service{
			ID: "Api-0", Tags: []string{"www", "www", "bad\u0000tag"}, Timeout: 30 * time.Second,
			Metadata: map[string]string{"service": "Shop", "methods": "buy, sell,buy,bad method", "host": "10.0.0.1", "port": "80"},
		}
		first, err := b.Create(ctx, author(), in)
		if err != nil {
			t.Fatal(err)
		}
		if at := first.Time(); !at.Equal(noon.Add(30 * time.Second)) {
			t.Errorf("the token is for %s", at)
		}
		got, err := b.Get(ctx, "default", "Api-0")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(in, got); diff != "" {
			t.Error(diff)
		}
		inst, err := b.registry.Get("default", "Api-0")
		if err != nil {
			t.Fatal(err)
		}
		if inst.Door != "rest" || inst.Declaration.Service != "shop" || len(inst.Declaration.Methods) != 2 ||
			!cmp.Equal(inst.Declaration.Tags, []string{"www"}) || inst.Declaration.Metadata["port"] != "80" {
			t.Errorf("instance %+v", inst)
		}

		b.clock.Advance(10 * time.Second)
		second := b.beat("Api-0", first)
		if got, _ := b.Get(ctx, "default", "Api-0"); !got.LastSeen.Equal(noon.Add(10 * time.Second)) {
			t.Errorf("last seen %s", got.LastSeen)
		}
		_, err = b.Beat(ctx, author(), "Api-0", first)
		missing(t, err, restreg.ObjectToken)
		_, err = b.Beat(ctx, author(), "Api-1", second)
		missing(t, err, restreg.ObjectService)
		_, err = b.Beat(ctx, restreg.Author{Namespace: "other"}, "Api-0", second)
		missing(t, err, restreg.ObjectService)

		tags, meta, timeout := []string{}, map[string]string{"service": "other"}, 3*time.Second
		if err := b.Update(ctx, author(), "Api-0", restreg.Change{Tags: &tags, Metadata: &meta, Timeout: &timeout}); err != nil {
			t.Fatal(err)
		}
		if inst, _ := b.registry.Get("default", "Api-0"); inst == nil || inst.Declaration.Service != "other" {
			t.Errorf("after the update %+v", inst)
		}
		third := b.beat("Api-0", second)
		if want := b.clock.Now().Add(3 * time.Second); !third.Time().Equal(want) {
			t.Errorf("deadline %s, want %s", third.Time(), want)
		}
		if err := b.Delete(ctx, author(), "Api-0"); err != nil {
			t.Fatal(err)
		}
		missing(t, b.Delete(ctx, author(), "Api-0"), restreg.ObjectService)
		if _, err := b.registry.Get("default", "Api-0"); errs.CodeOf(err) != errs.NotFound {
			t.Errorf("the instance is still there: %v", err)
		}

		// The same id again: its chain is another.
		b.create("Api-0", 30*time.Second)
		if got, _ := b.Get(ctx, "default", "Api-0"); !got.LastSeen.IsZero() {
			t.Errorf("last seen %s of a new service", got.LastSeen)
		}
		_, err = b.Beat(ctx, author(), "Api-0", third)
		missing(t, err, restreg.ObjectToken)
		if diff := cmp.Diff([]string{restreg.Joined, restreg.Removed, restreg.Joined}, b.types()); diff != "" {
			t.Error(diff)
		}
		want := `{"id":"Api-0","heartbeat_timeout":3,"tags":[],"metadata":{"service":"other"}}`
		if got := string(b.told()[1].Payload); got != want {
			t.Errorf("payload %s", got)
		}
	})
}

func TestExpiryHappensOnceAndInOrder(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, b *bench) {
		one := b.create("one", 3*time.Second)
		b.clock.Advance(time.Millisecond)
		two := b.create("two", 3*time.Second)
		b.create("long", 30*time.Second)
		b.clock.Advance(3 * time.Second)
		var wg sync.WaitGroup
		for range 150 {
			wg.Go(func() {
				if _, err := b.Get(t.Context(), "default", "one"); errs.CodeOf(err) != errs.NotFound {
					t.Errorf("got %v", err)
				}
				if n := len(b.told()); n != 5 {
					t.Errorf("%d events after a read", n)
				}
			})
		}
		wg.Wait()
		events := b.told()[3:]
		want := []restreg.Event{
			{Type: restreg.TimedOut, ID: one.String(), At: noon.Add(3 * time.Second), Payload: events[0].Payload},
			{Type: restreg.TimedOut, ID: two.String(), At: noon.Add(3*time.Second + time.Millisecond), Payload: events[1].Payload},
		}
		if diff := cmp.Diff(want, events); diff != "" {
			t.Error(diff)
		}
		_, err := b.Beat(t.Context(), author(), "one", one)
		missing(t, err, restreg.ObjectService)
		if diff := cmp.Diff([]string{"long"}, b.ids()); diff != "" {
			t.Error(diff)
		}
		stones, err := b.registry.Tombstones(t.Context(), registry.Filter{})
		if err != nil || len(stones) != 2 || stones[0].Reason != catalog.Expired {
			t.Errorf("tombstones %v %v", stones, err)
		}
	})
}

func TestLateHeartbeatSaves(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, b *bench) {
		u := b.create("api", 3*time.Second)
		b.clock.Advance(4 * time.Second) // overdue, and within the grace
		u = b.beat("api", u)
		if diff := cmp.Diff([]string{"api"}, b.ids()); diff != "" {
			t.Error(diff)
		}
		b.beat("api", u)
	})
}

func TestNobodyAsks(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, b *bench) {
		b.create("api", 3*time.Second)
		deadline := time.Now().Add(10 * time.Second)
		for len(b.told()) < 2 {
			if time.Now().After(deadline) {
				t.Fatal("the service has not ended")
			}
			b.clock.Advance(time.Second)
		}
		if at := b.told()[1].At; !at.Equal(noon.Add(3 * time.Second)) {
			t.Errorf("it ended at %s", at)
		}
		if now := b.clock.Now(); now.Before(noon.Add(8 * time.Second)) {
			t.Errorf("it ended already at %s", now)
		}
	})
}

func TestParallelCreates(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, b *bench) {
		var won atomic.Int32
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				_, err := b.Create(t.Context(), author(), restreg.Service{ID: "api", Timeout: time.Minute})
				switch {
				case err == nil:
					won.Add(1)
				case errs.CodeOf(err) != errs.AlreadyExists:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 || len(b.told()) != 1 {
			t.Errorf("%d succeeded, %d events", won.Load(), len(b.told()))
		}
	})
}

func TestLimit(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, b *bench) {
		b.quota = 2
		var wg sync.WaitGroup
		var refused atomic.Int32
		for _, id := range []string{"one", "two", "three", "four", "five"} {
			wg.Go(func() {
				_, err := b.Create(t.Context(), author(), restreg.Service{ID: id, Timeout: time.Minute})
				if e := errs.From(err); err != nil {
					refused.Add(1)
					if e.Code != errs.ResourceExhausted || e.Meta[restreg.MetaMost] != "2" {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if refused.Load() != 3 || len(b.ids()) != 2 {
			t.Errorf("%d refused, there are %v", refused.Load(), b.ids())
		}
		if b.quota = 0; b.ServiceLimit("default") != 200 {
			t.Error("the default is not 200")
		}
	})
}

func TestForeignInstanceKeepsItsID(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, b *bench) {
		o := registry.Owner{Namespace: "default", Instance: "api", Service: "api", Door: "link"}
		if _, _, err := b.registry.Register(t.Context(), o, &catalog.Declaration{Service: "api"}); err != nil {
			t.Fatal(err)
		}
		_, err := b.Create(t.Context(), author(), restreg.Service{ID: "api", Timeout: time.Minute})
		if errs.CodeOf(err) != errs.AlreadyExists {
			t.Error(err)
		}
		if inst, err := b.registry.Get("default", "api"); err != nil || inst.Door != "link" {
			t.Errorf("instance %v, %v", inst, err)
		}
	})
}

func TestKeyOfOneService(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, b *bench) {
		ctx, by := t.Context(), restreg.Author{Namespace: "default", KeyID: "k", Service: "shop"}
		u := b.create("other", time.Minute)
		_, created := b.Create(ctx, by, restreg.Service{ID: "mine", Timeout: time.Minute})
		_, beaten := b.Beat(ctx, by, "other", u)
		for what, err := range map[string]error{
			"create": created, "beat": beaten, "update": b.Update(ctx, by, "other", restreg.Change{}), "delete": b.Delete(ctx, by, "other"),
		} {
			if errs.CodeOf(err) != errs.PermissionDenied {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := b.Create(ctx, by, restreg.Service{ID: "mine", Timeout: time.Minute, Metadata: map[string]string{"service": "shop"}}); err != nil {
			t.Error(err)
		}
		meta := map[string]string{}
		if err := b.Update(ctx, by, "mine", restreg.Change{Metadata: &meta}); errs.CodeOf(err) != errs.PermissionDenied {
			t.Errorf("moved to another service: %v", err)
		}
	})
}

func TestRestartKnowsTheTokenInForce(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, b *bench) {
		ctx := t.Context()
		a1 := b.create("api", 30*time.Second)
		b.clock.Advance(time.Second)
		a2 := b.beat("api", a1)
		b.clock.Advance(time.Second)
		a3 := b.beat("api", a2)

		// In good order: the token in force and no other.
		b.restart()
		for _, old := range []restreg.UUID{a1, a2} {
			_, err := b.Beat(ctx, author(), "api", old)
			missing(t, err, restreg.ObjectToken)
		}
		b.clock.Advance(25 * time.Second)
		a4 := b.beat("api", a3)
		if got, _ := b.Get(ctx, "default", "api"); !got.LastSeen.Equal(b.clock.Now()) {
			t.Errorf("last seen %s", got.LastSeen)
		}

		// A crash: nothing was written of the beats, and the token is known by its MAC.
		b.clock.Advance(time.Second)
		a5 := b.beat("api", a4)
		b.crash()
		a6 := b.beat("api", a5)
		_, err := b.Beat(ctx, author(), "api", a5)
		missing(t, err, restreg.ObjectToken)
		forged := a6
		forged[15] ^= 1
		_, err = b.Beat(ctx, author(), "api", forged)
		missing(t, err, restreg.ObjectToken)

		// Nobody is gone who could not be heard: a whole timeout from the start on.
		b.clock.Advance(time.Hour)
		b.crash()
		b.clock.Advance(29 * time.Second)
		if diff := cmp.Diff([]string{"api"}, b.ids()); diff != "" {
			t.Error(diff)
		}
		b.clock.Advance(2 * time.Second)
		if diff := cmp.Diff([]string{}, b.ids()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestInstanceTakenAway(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, b *bench) {
		u := b.create("api", 30*time.Second)
		if err := b.registry.Deregister(t.Context(), "default", "api", catalog.Operator); err != nil {
			t.Fatal(err)
		}
		_, err := b.Beat(t.Context(), author(), "api", u)
		missing(t, err, restreg.ObjectService)
		if diff := cmp.Diff([]string{}, b.ids()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{restreg.Joined, restreg.Removed}, b.types()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestWriteFails(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, b *bench) {
		ctx := t.Context()
		b.create("old", 3*time.Second)
		disk := errors.New("the disk fell out")
		set := func(err error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.fail = err
		}
		set(disk)
		if _, err := b.Create(ctx, author(), restreg.Service{ID: "api", Timeout: time.Minute}); !errors.Is(err, disk) {
			t.Errorf("create: %v", err)
		}
		if _, err := b.registry.Get("default", "api"); errs.CodeOf(err) != errs.NotFound {
			t.Errorf("an instance without a service: %v", err)
		}
		b.clock.Advance(4 * time.Second)
		if _, err := b.Get(ctx, "default", "old"); !errors.Is(err, disk) {
			t.Errorf("get: %v", err)
		}
		set(nil)
		if diff := cmp.Diff([]string{}, b.ids()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{restreg.Joined, restreg.TimedOut}, b.types()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestOrphansAreTakenAway(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, b *bench) {
		b.create("api", time.Minute)
		o := registry.Owner{Namespace: "default", Instance: "orphan", Service: "orphan", Door: restreg.Door}
		if _, _, err := b.registry.Register(t.Context(), o, &catalog.Declaration{Service: "orphan"}); err != nil {
			t.Fatal(err)
		}
		if err := b.registry.Deregister(t.Context(), "default", "api", catalog.Operator); err != nil {
			t.Fatal(err)
		}
		b.crash()
		var have []string
		for _, i := range b.registry.List(registry.Filter{}) {
			have = append(have, i.ID)
		}
		if diff := cmp.Diff([]string{"api"}, have); diff != "" {
			t.Error(diff)
		}
	})
}

func TestPages(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, b *bench) {
		for _, id := range []string{"b-1", "B-1", "a-1", "a.1"} {
			b.create(id, time.Minute)
		}
		page := func(marker string, limit int) ([]string, string) {
			list, next, err := b.List(t.Context(), "default", "", marker, limit)
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for _, s := range list {
				ids = append(ids, s.ID)
			}
			return ids, next
		}
		ids, next := page("", 3)
		if !cmp.Equal(ids, []string{"B-1", "a-1", "a.1"}) || next != "b-1" {
			t.Errorf("%v, then %q", ids, next)
		}
		if ids, next = page("a-2", 10); !cmp.Equal(ids, []string{"a.1", "b-1"}) || next != "" {
			t.Errorf("%v, then %q", ids, next)
		}
	})
}
