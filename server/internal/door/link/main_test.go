package linkdoor_test

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	"telford.dev/telford/server/internal/door/doortest"
	linkdoor "telford.dev/telford/server/internal/door/link"
	"telford.dev/telford/server/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// runtime is everything behind a link door, and its address.
type runtime struct {
	*doortest.Backend
	addr string
}

func start(t *testing.T, opt doortest.Options) *runtime {
	t.Helper()
	st, err := store.Open(context.Background(), store.Config{Data: t.TempDir(), Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	b := doortest.New(t, st, opt)
	door := linkdoor.New(linkdoor.Config{Sessions: b.Sessions, Router: b.Router, Authority: b.Authority, Clock: b.Clock, Log: b.Log})
	_, addr := b.Listen(t, door.Serve)
	return &runtime{Backend: b, addr: addr}
}
