package router_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/limit"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/router"
)

// kept is an instance that came in by a door whose instances do not keep to limits
// themselves.
func kept(in *catalog.Instance) { in.Door = "grpc" }

func limits(list ...catalog.Limit) func(*catalog.Instance) {
	return func(in *catalog.Instance) {
		for i := range in.Declaration.Methods {
			in.Declaration.Methods[i].Limits = list
		}
	}
}

// slow is a link whose calls take a second, or until their context ends.
func slow(id string) *fakeLink {
	return &fakeLink{
		id: id,
		call: func(ctx context.Context, c *message.Call) (*message.Reply, error) {
			select {
			case <-time.After(time.Second):
				return &message.Reply{Body: []byte(id), ContentType: c.ContentType}, nil
			case <-ctx.Done():
				return nil, errs.From(ctx.Err())
			}
		},
	}
}

func routed(t *testing.T, instances ...*catalog.Instance) (*router.Router, *fakeIndex) {
	t.Helper()
	index := &fakeIndex{}
	index.set("default", "payments", instances...)
	r := router.New(router.Config{Index: index})
	for _, in := range instances {
		r.Attach("default", in.ID, slow(in.ID))
	}
	return r, index
}

func ask(ctx context.Context, r *router.Router, caller, body string) error {
	reply, err := r.Call(ctx, &router.Request{Caller: message.Caller{Namespace: "default", Service: caller}, Call: &message.Call{
		Service: "payments", Method: "charge", ContentType: message.JSON, Body: []byte(body),
	}})
	if err == nil && reply.Err != nil {
		return reply.Err
	}
	return err
}

func wantLimit(t *testing.T, err error, meta map[string]string) {
	t.Helper()
	e := errs.From(err)
	if e == nil || e.Code != errs.ResourceExhausted || !e.NotStarted || !e.Retryable || e.RetryAfter <= 0 || e.Meta["reason"] != "limit" {
		t.Fatalf("no limit: %+v", e)
	}
	for k, v := range meta {
		if e.Meta[k] != v {
			t.Errorf("%s is %q, want %q (%v)", k, e.Meta[k], v, e)
		}
	}
}

func TestLimitsOfInstancesThatDoNotKeepThem(t *testing.T) {
	t.Parallel()
	for key, second := range map[string][2]string{"caller": {"a", `{}`}, "field:tenant": {"b", `{"tenant":"x"}`}} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r, _ := routed(t, instance("in_1", kept, limits(catalog.Limit{Concurrency: 1, Key: key}, catalog.Limit{Concurrency: 2, Queue: 1})))
				done := make(chan error, 9)
				go func() { done <- ask(t.Context(), r, "a", `{"tenant":"x"}`) }()
				synctest.Wait()
				wantLimit(t, ask(t.Context(), r, second[0], second[1]), map[string]string{"running": "1", "service": "payments", "method": "charge"})
				go func() { done <- ask(t.Context(), r, "c", `{"tenant":"y"}`) }()
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				defer cancel()
				err := ask(ctx, r, "d", `{"tenant":"z"}`)
				wantLimit(t, err, map[string]string{"limit": "method charge", "place": "1", "running": "2"})
				for range 2 {
					if err := <-done; err != nil {
						t.Error(err)
					}
				}
				if err := ask(t.Context(), r, second[0], second[1]); err != nil {
					t.Errorf("after the first has ended: %v", err)
				}
			})
		})
	}
}

// Who keeps to limits itself is not counted here; what is too much for one instance goes
// to another.
func TestLimitsAreKeptWhereTheyHaveTo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		door := func(in *catalog.Instance) { in.Door = "link" }
		r, _ := routed(t, instance("in_1", door, limits(catalog.Limit{Concurrency: 1})))
		done := make(chan error, 9)
		for range 3 {
			go func() { done <- ask(t.Context(), r, "a", "{}") }()
		}
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		r, _ = routed(t, instance("in_1", kept, limits(catalog.Limit{Concurrency: 1})), instance("in_2", kept, limits(catalog.Limit{Concurrency: 1})))
		for range 2 {
			go func() { done <- ask(t.Context(), r, "a", "{}") }()
			synctest.Wait()
		}
		wantLimit(t, ask(t.Context(), r, "a", "{}"), map[string]string{"limit": "method charge"})
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestSetLimitsOfInstances(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		scoped := catalog.Limit{Concurrency: 4, Scope: catalog.LimitService}
		r, index := routed(t, instance("in_1", kept, limits(catalog.Limit{Concurrency: 1})))
		rule := func(method string, l catalog.Limit) limit.Rule {
			return limit.Rule{ID: "lim_1", Service: "payments", Method: method, Limit: l}
		}
		done := make(chan error, 99)
		begin := func(n int) {
			for range n {
				go func() { done <- ask(t.Context(), r, "a", "{}") }()
			}
			synctest.Wait()
		}
		end := func(n int) {
			t.Helper()
			for range n {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		}
		begin(1)
		r.SetLimits("default", []limit.Rule{rule("charge", catalog.Limit{Concurrency: 3}), {Service: "other", Limit: catalog.Limit{Concurrency: 1}}})
		begin(2)
		wantLimit(t, ask(t.Context(), r, "a", "{}"), map[string]string{"limit": "method charge", "running": "3"})
		end(3)
		r.SetLimits("default", nil)
		begin(1)
		wantLimit(t, ask(t.Context(), r, "a", "{}"), map[string]string{"running": "1"})
		end(1)
		// The instance as a whole.
		r.SetLimits("default", []limit.Rule{rule("charge", catalog.Limit{Concurrency: 9}), rule("", catalog.Limit{Concurrency: 2, Rate: 5, Burst: 3})})
		begin(2)
		wantLimit(t, ask(t.Context(), r, "a", "{}"), map[string]string{"limit": "instance of payments", "running": "2"})
		end(2)
		begin(3)
		if refused := len(done); refused != 1 {
			t.Errorf("%d of three were refused at once", refused)
		}
		wantLimit(t, <-done, map[string]string{"running": "2"})
		end(2)
		// Divided among those that take calls.
		time.Sleep(time.Second)
		r.SetLimits("default", []limit.Rule{rule("charge", scoped)})
		off := instance("in_3", kept)
		off.Draining = true
		index.set("default", "payments", instance("in_1", kept), instance("in_2", kept), off)
		begin(2)
		wantLimit(t, ask(t.Context(), r, "a", "{}"), map[string]string{"running": "2"})
		end(2)
	})
}

func TestShares(t *testing.T) {
	t.Parallel()
	v := func(s string) func(*catalog.Instance) { return version(s) }
	declared := []catalog.Limit{{Concurrency: 9, Queue: 3, Scope: catalog.LimitService}, {Rate: 1, Key: "caller"}}
	r, _ := routed(t, instance("in_1", v("1"), limits(catalog.Limit{Concurrency: 2, Scope: catalog.LimitService})), instance("in_2", v("2"), limits(declared...)),
		instance("in_3", v("2"), limits(declared...)), instance("in_4", v("2"), status(catalog.Error)))
	ruled := []limit.Rule{{ID: "lim_1", Service: "payments", Method: "charge", Limit: catalog.Limit{Rate: 6, Burst: 1, Scope: catalog.LimitService}}}
	got, divided := r.Shares("default", "payments", ruled)
	want := []limit.Rule{
		{ID: "lim_1", Service: "payments", Method: "charge", Limit: catalog.Limit{Rate: 2, Burst: 1, Scope: catalog.LimitService}},
		{Service: "payments", Method: "watch", Limit: catalog.Limit{Concurrency: 3, Queue: 1, Scope: catalog.LimitService}},
		{Service: "payments", Method: "watch", Limit: catalog.Limit{Rate: 1, Key: "caller"}},
	}
	if diff := cmp.Diff(want, got); diff != "" || !divided {
		t.Errorf("divided %v: %s", divided, diff)
	}
	if ruled[0].Limit.Rate != 6 {
		t.Error("the rule itself was changed")
	}
	got, divided = r.Shares("default", "nobody", []limit.Rule{{Service: "nobody", Limit: catalog.Limit{Concurrency: 4}}})
	if len(got) != 1 || got[0].Limit.Concurrency != 4 || divided {
		t.Errorf("a service that is away: %+v, %v", got, divided)
	}
}

func TestQuotaOfANamespace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, _ := routed(t, instance("in_1"))
		r.SetLimits("blue", []limit.Rule{{Limit: catalog.Limit{Concurrency: 1}}})
		r.SetLimits("", []limit.Rule{{ID: "lim_1", Limit: catalog.Limit{Concurrency: 1, Queue: 1, Key: "caller"}, Instances: 5}})
		done := make(chan error, 9)
		go func() { done <- ask(t.Context(), r, "a", "{}") }()
		synctest.Wait()
		go func() { done <- ask(t.Context(), r, "a", "{}") }()
		synctest.Wait()
		wantLimit(t, ask(t.Context(), r, "a", "{}"), map[string]string{
			"limit": "quota of namespace default, key caller=a", "running": "1", "queued": "1", "namespace": "default",
		})
		go func() { done <- ask(t.Context(), r, "b", "{}") }()
		go func() { done <- ask(t.Context(), r, "telford.operator", "{}") }()
		go func() { done <- ask(t.Context(), r, "telford.operator", "{}") }()
		for range 5 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		// Streams count until they end.
		open := func() (message.Stream, error) {
			return r.Stream(t.Context(), &router.Request{Caller: message.Caller{Service: "a"}, Call: &message.Call{Service: "payments", Method: "watch", ContentType: message.JSON}})
		}
		r.SetLimits("default", []limit.Rule{{Limit: catalog.Limit{Concurrency: 1}}})
		st, err := open()
		if err != nil {
			t.Fatal(err)
		}
		_, err = open()
		wantLimit(t, err, map[string]string{"limit": "quota of namespace default", "running": "1"})
		st.Close()
		st, err = open()
		if err != nil {
			t.Fatal(err)
		}
		st.Close()
		r.SetLimits("default", nil)
		if err := ask(t.Context(), r, "a", "{}"); err != nil {
			t.Error(err)
		}
	})
}

func TestStreamsOfInstancesThatDoNotKeepLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, _ := routed(t, instance("in_1", kept, limits(catalog.Limit{Concurrency: 1})))
		open := func() (message.Stream, error) {
			return r.Stream(t.Context(), &router.Request{Call: &message.Call{Service: "payments", Method: "watch", ContentType: message.JSON}})
		}
		st, err := open()
		if err != nil {
			t.Fatal(err)
		}
		_, err = open()
		wantLimit(t, err, map[string]string{"limit": "method watch", "running": "1"})
		st.Close()
		if st, err = open(); err != nil {
			t.Fatal(err)
		}
		st.Close()
	})
}

func TestTimeoutOfAMethod(t *testing.T) {
	t.Parallel()
	timeout := func(in *catalog.Instance) { in.Declaration.Methods[0].Timeout = 100 * time.Millisecond }
	synctest.Test(t, func(t *testing.T) {
		r, _ := routed(t, instance("in_1", kept, timeout))
		start := time.Now()
		err := ask(t.Context(), r, "a", "{}")
		e := errs.From(err)
		if !errors.Is(err, context.DeadlineExceeded) || e.Meta["timeout"] != "100ms" || !strings.Contains(e.Message, "its method sets itself") || time.Since(start) != 100*time.Millisecond {
			t.Errorf("after %v: %+v", time.Since(start), e)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if e := errs.From(ask(ctx, r, "a", "{}")); e == nil || e.Code != errs.DeadlineExceeded || e.Meta["timeout"] != "" {
			t.Errorf("the deadline of the caller: %+v", e)
		}
	})
}
