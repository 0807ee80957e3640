package admit_test

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/door/admit"
	"telford.dev/telford/server/internal/door/doortest"
	"telford.dev/telford/server/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func backend(t *testing.T) *doortest.Backend {
	t.Helper()
	st, err := store.Open(context.Background(), store.Config{Data: t.TempDir(), Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return doortest.New(t, st, doortest.Options{})
}

func TestBearer(t *testing.T) {
	t.Parallel()
	b := backend(t)
	key, text := b.Key(t, "orders")
	for _, header := range []string{"Bearer " + text, "bearer  " + text} {
		grant, err := b.Gate.Bearer(t.Context(), header, "")
		if err != nil || grant.Caller.Service != "orders" || grant.Caller.KeyID != key.ID || grant.Namespace() != "default" || grant.Operator {
			t.Errorf("%+v, %v", grant, err)
		}
	}
	operator := "Bearer " + b.Authority.OperatorToken()
	for namespace, want := range map[string]string{"": "default", "acme": "acme"} {
		grant, err := b.Gate.Bearer(t.Context(), operator, namespace)
		if err != nil || !grant.Operator || grant.Namespace() != want || grant.Caller.Service != admit.Operator {
			t.Errorf("the operator in %q: %+v, %v", namespace, grant, err)
		}
	}
	for header, want := range map[string]errs.Code{
		"": errs.Unauthenticated, "Bearer": errs.Unauthenticated, "Basic " + text: errs.Unauthenticated, "Bearer x": errs.Unauthenticated,
	} {
		if _, err := b.Gate.Bearer(t.Context(), header, ""); err == nil || err.Code != want || !err.NotStarted {
			t.Errorf("%q: %v", header, err)
		}
	}
	if _, err := b.Gate.Bearer(t.Context(), "Bearer "+text, "acme"); err == nil || err.Code != errs.PermissionDenied {
		t.Errorf("a key in another namespace: %v", err)
	}
}

func TestHoldEndsWithTheKey(t *testing.T) {
	t.Parallel()
	b := backend(t)
	key, text := b.Key(t, "orders")
	grant, e := b.Gate.Bearer(t.Context(), "Bearer "+text, "")
	if e != nil {
		t.Fatal(e)
	}
	ctx, release := b.Gate.Hold(t.Context(), grant)
	defer release()
	_, otherText := b.Key(t, "orders")
	other, e := b.Gate.Bearer(t.Context(), "Bearer "+otherText, "")
	if e != nil {
		t.Fatal(e)
	}
	otherCtx, otherRelease := b.Gate.Hold(t.Context(), other)
	if _, err := b.Authority.RevokeKey(t.Context(), key.ID, "test", "leaked"); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	if errs.CodeOf(context.Cause(ctx)) != errs.PermissionDenied {
		t.Errorf("cause %v", context.Cause(ctx))
	}
	if otherCtx.Err() != nil {
		t.Error("another key's call ended")
	}
	otherRelease()
	if otherCtx.Err() == nil {
		t.Error("a released context goes on")
	}
	late, release := b.Gate.Hold(t.Context(), grant)
	defer release()
	if late.Err() == nil {
		t.Error("a call of a key that was revoked just before goes on")
	}
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	b := backend(t)
	key, _ := b.Key(t, "orders")
	id := b.Certify(t, key, "orders", "ord-1").Identity()
	grant, e := b.Gate.Certificate(id, "default")
	if e != nil || grant.Caller.Instance != "ord-1" || !grant.Certified {
		t.Errorf("%+v, %v", grant, e)
	}
	if _, e := b.Gate.Certificate(id, "acme"); e == nil || e.Code != errs.PermissionDenied {
		t.Errorf("in another namespace: %v", e)
	}
	if err := b.Authority.RevokeInstance(t.Context(), "default", "ord-1", "test", ""); err != nil {
		t.Fatal(err)
	}
	if _, e := b.Gate.Certificate(id, ""); e == nil || e.Code != errs.PermissionDenied {
		t.Errorf("revoked: %v", e)
	}
}
