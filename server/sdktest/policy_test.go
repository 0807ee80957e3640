package sdktest

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"telford.dev/telford"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/telfordtest"
)

// everyWay are the paths of somebody with an SDK, and of one without.
func (w *world) everyWay(t *testing.T) map[string]way {
	t.Helper()
	w.target()
	key := w.srv.Key(t, "intruder")
	sdk := w.start(w.make("intruder", telford.CallerOnly(), telford.Uses("echo"), telford.WithKey(key)))
	ways := w.rawWays(t, w.intruder(key), found(t, sdk))
	maps.Copy(ways, sdkWays(sdk))
	for name, call := range ways {
		if err := call.try(t); err != nil {
			t.Fatalf("%s before there are rules: %v", name, err)
		}
	}
	return ways
}

// bound is how long a change of the policy may take to hold everywhere.
const bound = 2 * time.Second

// becomes polls one way until its calls end as ok says.
func becomes(t *testing.T, since time.Time, call way, ok func(error) bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := call.try(t)
		if ok(err) {
			break
		}
		if time.Since(since) > bound {
			t.Errorf("after %v it ends with %v", time.Since(since).Round(time.Millisecond), err)
			return
		}
		<-tick.C
	}
	for range 3 {
		if err := call.try(t); !ok(err) {
			t.Errorf("it had changed, and ends with %v again", err)
		}
	}
}

// Each change of the rules holds on every way within two seconds and without another
// connection, and a refusal names the rule.
func TestPolicyOnEveryWay(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]struct {
		lay  func(t *testing.T, srv *telfordtest.Server) (id string)
		says func(id string) string
	}{
		"the callee denies": {
			func(t *testing.T, srv *telfordtest.Server) string {
				return srv.Deny(t, "echo", "rpc.handle", "intr*", "")
			},
			func(id string) string { return id },
		},
		"the callee allows others": {
			func(t *testing.T, srv *telfordtest.Server) string {
				return srv.Allow(t, "echo", "rpc.handle", "honest", "")
			},
			func(string) string { return "telford policy allow echo rpc.handle --peer intruder" },
		},
		"the caller is denied": {
			func(t *testing.T, srv *telfordtest.Server) string {
				return srv.Deny(t, "intruder", "rpc.call", "echo", "")
			},
			func(id string) string { return id },
		},
		"the caller is allowed other things": {
			func(t *testing.T, srv *telfordtest.Server) string {
				return srv.Allow(t, "intruder", "rpc.call", "echo", "nothing")
			},
			func(id string) string { return id }, // the nearest
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			ways := w.everyWay(t)
			id := change.lay(t, w.srv)
			since := time.Now()
			onEach(t, ways, func(t *testing.T, call way) {
				becomes(t, since, call, func(err error) bool { return denied(err) && strings.Contains(err.Error(), change.says(id)) })
			})
			w.srv.RemoveRule(t, id)
			since = time.Now()
			onEach(t, ways, func(t *testing.T, call way) {
				becomes(t, since, call, func(err error) bool { return err == nil })
			})
		})
	}
}

// onEach runs f for every way at once, in a test each.
func onEach(t *testing.T, ways map[string]way, f func(t *testing.T, call way)) {
	t.Helper()
	t.Run("ways", func(t *testing.T) {
		for name, call := range ways {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				f(t, call)
			})
		}
	})
}

func TestCapabilityOnEveryWay(t *testing.T) { //nolint:tparallel // one change after another; the ways of each are parallel
	t.Parallel()
	w := newWorld(t)
	ways := w.everyWay(t)
	for _, pair := range [][2]string{{"echo", "rpc.handle"}, {"intruder", "rpc.call"}} {
		w.srv.SetCapability(t, pair[0], pair[1], false)
		since := time.Now()
		onEach(t, ways, func(t *testing.T, call way) {
			becomes(t, since, call, func(err error) bool { return err != nil })
		})
		w.srv.SetCapability(t, pair[0], pair[1], true)
		since = time.Now()
		onEach(t, ways, func(t *testing.T, call way) {
			becomes(t, since, call, func(err error) bool { return err == nil })
		})
	}
}

func TestAllowedCallersOnEveryWay(t *testing.T) { //nolint:tparallel // one change after another; the ways of each are parallel
	t.Parallel()
	w := newWorld(t)
	s := w.make("echo")
	only := telford.AllowedCallers("friend")
	must(t, telford.Handle(s, "echo", func(context.Context, *echoReq) (*echoResp, error) { return &echoResp{}, nil }, only))
	must(t, telford.HandleStream(s, "count", func(_ context.Context, _ *echoReq, out *telford.Sender[echoResp]) error {
		return out.Send(&echoResp{})
	}, only))
	testpb.RegisterTestServiceServer(s, testService{})
	for _, m := range []string{"UnaryCall", "StreamingOutputCall", "StreamingInputCall"} {
		must(t, s.Configure("grpc.testing.TestService/"+m, only))
	}
	w.start(s)
	key := w.srv.Key(t, "intruder")
	sdk := w.start(w.make("intruder", telford.CallerOnly(), telford.Uses("echo"), telford.WithKey(key)))
	ways := w.rawWays(t, w.intruder(key), found(t, sdk))
	maps.Copy(ways, sdkWays(sdk))
	onEach(t, ways, func(t *testing.T, call way) {
		if err := call.try(t); !denied(err) || !strings.Contains(err.Error(), "friend") {
			t.Errorf("got %v", err)
		}
	})
	friend := w.start(w.make("friend", telford.CallerOnly(), telford.Uses("echo")))
	found(t, friend)
	onEach(t, sdkWays(friend), func(t *testing.T, call way) {
		if err := call.try(t); err != nil {
			t.Error(err)
		}
	})
}

// Rules that are only counted let everything pass, and count each call once, whichever
// way it took. What instances have counted themselves they report every five seconds.
func TestShadowRulesCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.srv.SetShadow(t, w.srv.Deny(t, "echo", "rpc.handle", "intruder", ""), true)
	want := int64(len(w.everyWay(t))) // each of them was tried once
	counted := func() (n int64) {
		list, err := w.srv.Runtime().Rules().Shadow(t.Context(), "default")
		must(t, err)
		for _, d := range list {
			if d.Service != "echo" || d.Action != "rpc.handle" || d.Caller != "intruder" || d.Callee != "echo" {
				t.Errorf("counted %+v", d)
			}
			n += d.Count
		}
		return n
	}
	await(t, 15*time.Second, func() bool { return counted() >= want }, 100*time.Millisecond)
	if got := counted(); got != want {
		t.Errorf("%d calls were counted, want %d", got, want)
	}
}

// await polls until ok holds.
func await(t *testing.T, limit time.Duration, ok func() bool, every time.Duration) {
	t.Helper()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for late := time.After(limit); !ok(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not within %v", limit)
		}
	}
}

// Rules hold while the runtime is away.
func TestPolicyWithoutTheRuntime(t *testing.T) { //nolint:tparallel // one change after another; the ways of each are parallel
	t.Parallel()
	w := newWorld(t)
	ways := w.everyWay(t)
	id := w.srv.Deny(t, "echo", "rpc.handle", "intruder", "")
	since := time.Now()
	direct := make(map[string]way)
	for name, call := range ways {
		if strings.HasPrefix(name, "direct") || strings.HasPrefix(name, "SDK direct") {
			direct[name] = call
			becomes(t, since, call, denied)
		}
	}
	w.srv.Kill(t)
	onEach(t, direct, func(t *testing.T, call way) {
		for range 5 {
			if err := call.try(t); !denied(err) || !strings.Contains(err.Error(), id) {
				t.Errorf("got %v", err)
			}
		}
	})
}

func TestForbiddenDeclarations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.srv.Allow(t, "shop", "rpc.call", "payments", "charge")
	w.srv.SetCapability(t, "shop", "rpc.handle", false)
	declare := func(opts ...telford.Option) *telford.Service {
		s := w.make("shop", append([]telford.Option{
			telford.Uses("payments", "charge", "refund"), telford.Uses("mail"), telford.Publishes("orders.created"),
		}, opts...)...)
		must(t, telford.Handle(s, "place", func(context.Context, *echoReq) (*echoResp, error) { return &echoResp{}, nil }))
		return s
	}
	var mu sync.Mutex
	got := make(map[string]int)
	s := declare()
	s.OnPolicyViolation(func(v telford.PolicyViolation) {
		mu.Lock()
		defer mu.Unlock()
		got[v.Declaration+" "+v.Value+" "+v.Side]++
		if v.Reason == "" {
			t.Errorf("%+v has no reason", v)
		}
	})
	seen := func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(got)
	}
	w.start(s)
	want := map[string]int{
		"rpc.call payments/refund self_egress": 1, "rpc.call mail self_egress": 1,
		"rpc.handle place capability": 1, "capabilities rpc.handle capability": 1,
	}
	await(t, bound, func() bool { return cmp.Equal(want, seen()) }, 5*time.Millisecond)
	if diff := cmp.Diff(want, seen()); diff != "" {
		t.Error(diff)
	}
	eval := s.PolicyEvaluation()
	if len(eval.Egress) != 1 || eval.Egress[0].Peer != "payments" || len(eval.Warnings) != len(want) {
		t.Errorf("evaluation: %+v", eval)
	}
	// A change is told while the service runs, once.
	w.srv.Deny(t, "shop", "event.publish", "", "orders.*")
	want["event.publish orders.created self_egress"] = 1
	await(t, bound, func() bool { return cmp.Equal(want, seen()) }, 5*time.Millisecond)
	// And so is each call that is denied.
	for i := range 2 {
		if _, err := telford.Call[echoResp](t.Context(), s, "mail", "send", &echoReq{}); !denied(err) && errs.CodeOf(err) != errs.ServiceNotFound && errs.CodeOf(err) != errs.NoInstance {
			t.Errorf("call %d: %v", i, err)
		}
	}

	strict := declare(telford.FailOnPolicyViolation())
	reasons := make(chan telford.Disconnected, 1)
	strict.OnDisconnected(func(d telford.Disconnected) { reasons <- d })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := strict.Start(ctx)
	var e *telford.Error
	if !errors.As(err, &e) || e.Code != telford.CodePermissionDenied || !strings.HasPrefix(e.Message, string(telford.DisconnectPolicy)) {
		t.Errorf("strict: %v", err)
	}
	if d := <-reasons; !strings.HasPrefix(string(d.Reason), string(telford.DisconnectPolicy)+" ") || strings.Count(string(d.Reason), " ") < 2 {
		t.Errorf("strict: disconnected with %q", d.Reason)
	}
	must(t, strict.Stop(context.Background()))
	free := w.make("free", telford.FailOnPolicyViolation(), telford.Uses("echo"))
	w.start(free)
}

// What a service may not call it does not see.
func TestHiddenMethods(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	caller := w.start(w.make("caller", telford.CallerOnly(), telford.Uses("echo")))
	found(t, caller)
	methods := func() string {
		var names []string
		for _, i := range caller.ServiceMap()["echo"].Instances {
			for _, m := range i.Methods {
				names = append(names, m.Name)
			}
		}
		return strings.Join(names, " ")
	}
	w.srv.Allow(t, "caller", "rpc.call", "echo", "count")
	await(t, bound, func() bool { return methods() == "count" }, 5*time.Millisecond)
	w.srv.Deny(t, "echo", "rpc.handle", "caller", "")
	await(t, bound, func() bool { return methods() == "" && len(caller.ServiceMap()["echo"].Instances) == 0 }, 5*time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := caller.WaitReady(ctx, "echo"); err == nil || !strings.Contains(err.Error(), "policy forbids") {
		t.Errorf("waiting for what is hidden: %v", err)
	}
	// Denials are told whoever denies: this end, or the runtime.
	violations := make(chan telford.PolicyViolation, 10)
	caller.OnPolicyViolation(func(v telford.PolicyViolation) { violations <- v })
	for name, mode := range map[string]telford.TransportMode{"here": telford.Direct, "by the runtime": telford.Proxy} {
		_, err := telford.Call[echoResp](t.Context(), caller, "echo", "count", &echoReq{}, telford.Transport(mode))
		if !denied(err) {
			t.Errorf("%s: %v", name, err)
		}
		select {
		case v := <-violations:
			if v.Declaration != "rpc.call" || v.Value != "echo/count" || v.Side != "peer_acceptance" {
				t.Errorf("%s: told %+v", name, v)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: nobody was told", name)
		}
	}
}
