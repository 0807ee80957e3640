package client

import (
	"testing"

	"go.uber.org/goleak"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/catalogpb"
	"telford.dev/telford/internal/handlers"
	"telford.dev/telford/internal/view"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// step is one message of a watch as it comes in.
func step(snapshot bool, n uint64, ids ...string) *telfordv1.WatchUpdate {
	u := &catalog.Update{Snapshot: snapshot}
	if n > 0 {
		u.Revision = catalog.Revision{Epoch: 1, N: n}
	}
	for _, id := range ids {
		u.Upserts = append(u.Upserts, &catalog.Instance{Namespace: "default", ID: id, Declaration: catalog.Declaration{Service: "payments"}})
	}
	return catalogpb.UpdateToProto(u)
}

// TestUpdatesInParts: nobody sees half a snapshot, and what a connection has left
// unfinished does not mix with what its successor brings.
func TestUpdatesInParts(t *testing.T) {
	t.Parallel()
	var gone int
	s := New(Options{Table: handlers.New(handlers.Options{}), View: view.New(), Events: Events{
		Gone: func(list []*catalog.Instance) { gone += len(list) },
	}})
	defer s.Close("")
	first, second := &port{s: s}, &port{s: s}
	for i, c := range []struct {
		p     *port
		u     *telfordv1.WatchUpdate
		whole bool
		known int
		n     uint64
		gone  int
	}{
		{first, step(true, 0, "a", "b"), false, 0, 0, 0},
		{first, step(false, 0, "c"), false, 0, 0, 0},
		{first, step(false, 7, "d"), true, 4, 7, 0},
		{first, step(false, 8, "e"), true, 5, 8, 0},
		{first, step(true, 0, "a"), false, 5, 8, 0},
		// The connection is lost in the middle of a snapshot.
		{second, step(false, 9, "f"), true, 6, 9, 0},
		{second, step(true, 0, "a"), false, 6, 9, 0},
		{second, step(false, 12, "b"), true, 2, 12, 4},
	} {
		if whole := s.update(c.p, c.u); whole != c.whole {
			t.Errorf("step %d: whole is %t", i, whole)
		}
		now := s.opt.View.Snapshot()
		if len(now.Services["payments"]) != c.known || now.Revision.N != c.n || gone != c.gone {
			t.Errorf("step %d: %d known at %d, %d gone, want %d at %d, %d", i, len(now.Services["payments"]), now.Revision.N, gone, c.known, c.n, c.gone)
		}
	}
}
