package catalog_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/catalog"
)

func TestParts(t *testing.T) {
	t.Parallel()
	up := func(ids ...string) (list []*catalog.Instance) {
		for _, id := range ids {
			list = append(list, &catalog.Instance{ID: id})
		}
		return list
	}
	rev := func(n uint64) catalog.Revision { return catalog.Revision{Epoch: 1, N: n} }
	gone := []catalog.Tombstone{{ID: "x"}}
	steps := []struct{ in, want *catalog.Update }{
		{&catalog.Update{Snapshot: true, Revision: rev(1), Upserts: up("a")}, &catalog.Update{Snapshot: true, Revision: rev(1), Upserts: up("a")}},
		{&catalog.Update{Upserts: up("b"), Removals: gone}, nil},
		{&catalog.Update{Upserts: up("c")}, nil},
		{&catalog.Update{Revision: rev(2), Upserts: up("d")}, &catalog.Update{Revision: rev(2), Upserts: up("b", "c", "d"), Removals: gone}},
		{&catalog.Update{Revision: rev(3), Upserts: up("e")}, &catalog.Update{Revision: rev(3), Upserts: up("e")}},
		{&catalog.Update{Snapshot: true, Upserts: up("f")}, nil},
		{&catalog.Update{Snapshot: true, Upserts: up("g")}, nil},
		{&catalog.Update{Revision: rev(4)}, &catalog.Update{Snapshot: true, Revision: rev(4), Upserts: up("g")}},
		{&catalog.Update{Upserts: up("h")}, nil},
		{&catalog.Update{Snapshot: true, Revision: rev(5)}, &catalog.Update{Snapshot: true, Revision: rev(5)}},
		{&catalog.Update{Revision: rev(6), Upserts: up("i")}, &catalog.Update{Revision: rev(6), Upserts: up("i")}},
	}
	var p catalog.Parts
	for i, s := range steps {
		if diff := cmp.Diff(s.want, p.Add(s.in)); diff != "" {
			t.Fatalf("step %d: %s", i, diff)
		}
	}
}
