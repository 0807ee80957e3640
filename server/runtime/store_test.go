package runtime_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/store/storetest"
	"telford.dev/telford/server/internal/tx"
	"telford.dev/telford/server/runtime"
	"telford.dev/telford/server/telfordtest"
)

// TestStateIsReadAgainAfterAnUnknownOutcome: when the answer to a COMMIT is lost, the
// next write finds out what became of it, for every domain.
func TestStateIsReadAgainAfterAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	database, relay := relayed(t, storetest.Postgres(t))
	srv := telfordtest.Start(t, telfordtest.WithDatabase(database))
	ctx := t.Context()
	authority, reg := srv.Runtime().Authority(), srv.Runtime().Registry()
	owner := registry.Owner{Namespace: "default", Instance: "in-1", Service: "payments", Door: "link"}
	if _, _, err := reg.Register(ctx, owner, &catalog.Declaration{}); err != nil {
		t.Fatal(err)
	}
	text := srv.Key(t, "payments")
	who, err := authority.Authenticate(ctx, text)
	if err != nil {
		t.Fatal(err)
	}

	relay.armed.Store(true)
	if err := reg.Drain(ctx, "default", "in-1", true); !errors.Is(err, tx.ErrOutcomeUnknown) || errs.CodeOf(err) != errs.Unavailable {
		t.Fatalf("drain: %v", err)
	}
	if i, err := reg.Get("default", "in-1"); err != nil || i.Draining {
		t.Fatalf("known before it could be: %+v, %v", i, err)
	}
	relay.armed.Store(true)
	if _, err := authority.RevokeKey(ctx, who.KeyID, "test", ""); err == nil {
		t.Fatal("revoked without an answer")
	}
	if i, err := reg.Get("default", "in-1"); err != nil || !i.Draining {
		t.Errorf("the registry was not read again: %+v, %v", i, err)
	}
	srv.Key(t, "orders") // any write
	if _, err := authority.Authenticate(ctx, text); errs.CodeOf(err) != errs.Unauthenticated {
		t.Errorf("identity was not read again: %v", err)
	}
	if err := srv.Runtime().Stop(ctx); err != nil {
		t.Error(err)
	}
}

// TestKeysOfTheClusterAreWhereItsStoreIs: on PostgreSQL another node finds them, and
// nobody without the cluster secret.
func TestKeysOfTheClusterAreWhereItsStoreIs(t *testing.T) {
	t.Parallel()
	const secret = "a secret of some length"
	node := func(database, secret string) (*runtime.Runtime, error) {
		cfg := plain(t)
		cfg.Database, cfg.ClusterSecret = database, secret
		rt, err := runtime.New(cfg)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { _ = rt.Stop(context.Background()) })
		return rt, rt.Start(t.Context())
	}
	root := func(rt *runtime.Runtime) []byte {
		text, err := os.ReadFile(rt.Path("ca.crt"))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	database := storetest.Postgres(t)
	first, err := node(database, secret)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(first.Path("pki")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("keys in files: %v", err)
	}
	_, text, err := first.Authority().CreateKey(t.Context(), identity.CreateKey{
		Namespace: "default", Service: "payments", Kind: identity.KindService, Author: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := node(database, "another secret than that"); errs.CodeOf(err) != errs.FailedPrecondition {
		t.Errorf("with another secret: %v", err)
	}
	second, err := node(database, secret)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(root(first), root(second)) {
		t.Error("the second node has another root")
	}
	if _, err := second.Authority().Authenticate(t.Context(), text); err != nil {
		t.Errorf("the second node does not know a key of the first: %v", err)
	}

	files, err := node("", "")
	if err != nil {
		t.Fatal(err)
	}
	if list, err := filepath.Glob(files.Path("pki/*")); err != nil || len(list) == 0 {
		t.Errorf("on SQLite there are no files of keys: %v", err)
	}
}
