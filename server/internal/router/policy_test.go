package router_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/router"
)

// gate is a policy that is open or shut.
type gate struct {
	shut, off atomic.Bool
	exempt    string
}

func (g *gate) MayCall(_ string, caller *message.Caller, service string, m *catalog.Method) *errs.Error {
	if caller.Service == g.exempt || !g.shut.Load() && !g.off.Load() {
		return nil
	}
	return errs.New(errs.PermissionDenied, "%s may not call %s of %s", caller.Service, m.Name, service)
}

func (g *gate) Handles(string, string) bool { return !g.off.Load() }

func TestThePolicyIsAskedByFullName(t *testing.T) {
	t.Parallel()
	g := &gate{exempt: "root"}
	b := &bench{index: new(fakeIndex), links: make(map[string]*fakeLink)}
	b.Router = router.New(router.Config{Index: b.index, Policy: g})
	b.index.set("default", "payments", instance("one", methods(catalog.Method{Name: "shop.v1.Payments/Charge", Kind: catalog.Unary})))
	b.attach("one")
	by := func(service, method string) error {
		req := request(calling("payments", method))
		req.Caller.Service = service
		_, err := b.Call(t.Context(), req)
		return err
	}
	if err := by("orders", "Charge"); err != nil {
		t.Error(err)
	}
	g.shut.Store(true)
	e := want(t, by("orders", "Charge"), errs.PermissionDenied, "orders may not call shop.v1.Payments/Charge of payments")
	if !e.NotStarted {
		t.Errorf("%+v", e)
	}
	want(t, by("orders", "Refund"), errs.MethodNotFound, "Charge")

	// A service that may not handle calls has no methods to be seen; who asks is told why.
	g.shut.Store(false)
	g.off.Store(true)
	b.index.set("default", "payments", instance("one", methods()))
	want(t, by("orders", "Charge"), errs.PermissionDenied, "Charge")
	want(t, by("root", "Charge"), errs.MethodNotFound, "telford policy capability payments rpc.handle on")
}

// Rules that come while a call waits hold for it.
func TestThePolicyIsAskedAgainAfterAWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{exempt: "root"}
		b := &bench{index: new(fakeIndex), links: make(map[string]*fakeLink)}
		b.Router = router.New(router.Config{Index: b.index, Policy: g, Returning: 30 * time.Second})
		b.index.set("default", "payments", instance("one"))
		done := make(chan error, 1)
		go func() {
			_, err := b.Call(t.Context(), request())
			done <- err
		}()
		time.Sleep(time.Second) // of the bubble
		g.shut.Store(true)
		b.attach("one")
		want(t, <-done, errs.PermissionDenied)
	})
}
