package view

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

func instance(id, service string, change ...func(*catalog.Declaration)) *catalog.Instance {
	d := catalog.Declaration{
		Service: service, Realm: "global", Status: catalog.OK,
		Methods:   []catalog.Method{{Name: "echo", ContentTypes: []string{"json"}, Contract: "js:1"}, {Name: "p.S/Do", ContentTypes: []string{"proto", "json"}}},
		Endpoints: []catalog.Endpoint{{Kind: "http", Host: "h", Port: 1}, {Kind: "link", Host: "::1", Port: 7}},
	}
	for _, f := range change {
		f(&d)
	}
	return &catalog.Instance{ID: id, Declaration: d}
}

func snapshot(list ...*catalog.Instance) *Snapshot {
	v := New()
	v.Apply(&catalog.Update{Snapshot: true, Upserts: list})
	return v.Snapshot()
}

func ids(list []*catalog.Instance) []string {
	out := make([]string, 0, len(list))
	for _, i := range list {
		out = append(out, i.ID)
	}
	return out
}

func TestApply(t *testing.T) {
	t.Parallel()
	v := New()
	changed := v.Changed()
	v.Apply(&catalog.Update{Snapshot: true, Revision: catalog.Revision{Epoch: 1, N: 1}, Upserts: []*catalog.Instance{instance("b", "s"), instance("a", "s"), instance("c", "t")}})
	select {
	case <-changed:
	default:
		t.Error("nobody was told")
	}
	if got := ids(v.Snapshot().Services["s"]); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("got %v", got)
	}
	gone := v.Apply(&catalog.Update{Revision: catalog.Revision{Epoch: 1, N: 2}, Upserts: []*catalog.Instance{instance("d", "t")}, Removals: []catalog.Tombstone{{ID: "a"}, {ID: "nobody"}}})
	if got := ids(gone); !slices.Equal(got, []string{"a"}) {
		t.Errorf("gone: %v", got)
	}
	gone = v.Apply(&catalog.Update{Snapshot: true, Revision: catalog.Revision{Epoch: 2, N: 1}, Upserts: []*catalog.Instance{instance("d", "t")}})
	slices.SortFunc(gone, func(a, b *catalog.Instance) int { return int(a.ID[0]) - int(b.ID[0]) })
	if got := ids(gone); !slices.Equal(got, []string{"b", "c"}) || v.Snapshot().Instance("d") == nil {
		t.Errorf("gone: %v", got)
	}
}

func TestCovers(t *testing.T) {
	t.Parallel()
	v := New()
	if !v.Want("s", "t") || v.Want("s") {
		t.Error("Want does not tell what is new")
	}
	if asked, answered := v.Asked(); answered || !slices.Equal(asked, []string{"s", "t"}) {
		t.Errorf("asked %v, %v", asked, answered)
	}
	if v.Covers("s") {
		t.Error("covered before an answer")
	}
	v.Want("u")
	v.Apply(&catalog.Update{Snapshot: true})
	if !v.Covers("s") || !v.Covers("t") || v.Covers("u") {
		t.Error("the answer was for s and t")
	}
	if _, answered := v.Asked(); answered {
		t.Error("u was not answered")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := v.Wait(ctx, func() bool { return v.Covers("u") }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	set := func(f func(*catalog.Declaration)) func(*catalog.Declaration) { return f }
	version := func(v string, compatible ...string) func(*catalog.Declaration) {
		return set(func(d *catalog.Declaration) { d.Version, d.CompatibleVersions = v, compatible })
	}
	for name, test := range map[string]struct {
		list   []*catalog.Instance
		method string
		ct     message.ContentType
		target message.Target
		want   []string
		err    errs.Code
		unfit  bool
	}{
		"all":               {list: []*catalog.Instance{instance("a", "s"), instance("b", "s")}, want: []string{"a", "b"}},
		"nobody":            {err: errs.NoInstance},
		"unknown method":    {list: []*catalog.Instance{instance("a", "s")}, method: "nope", err: errs.MethodNotFound},
		"bare last segment": {list: []*catalog.Instance{instance("a", "s")}, method: "Do", want: []string{"a"}},
		"ambiguous": {list: []*catalog.Instance{instance("a", "s", func(d *catalog.Declaration) {
			d.Methods = append(d.Methods, catalog.Method{Name: "q.S/Do"})
		})}, method: "Do", err: errs.InvalidArgument},
		"status": {list: []*catalog.Instance{
			instance("a", "s", func(d *catalog.Declaration) { d.Status = catalog.Error }), instance("b", "s", func(d *catalog.Declaration) { d.Status = catalog.Warning }),
			instance("c", "s", func(d *catalog.Declaration) { d.Status = catalog.Suspended }),
		}, want: []string{"b"}},
		"none is well":    {list: []*catalog.Instance{instance("a", "s", func(d *catalog.Declaration) { d.Status = catalog.Error })}, unfit: true},
		"no address":      {list: []*catalog.Instance{instance("a", "s", func(d *catalog.Declaration) { d.Endpoints = nil })}, unfit: true},
		"content type":    {list: []*catalog.Instance{instance("a", "s")}, ct: message.Msgpack, unfit: true},
		"exact version":   {list: []*catalog.Instance{instance("a", "s", version("1")), instance("b", "s", version("2", "1"))}, target: message.Target{Version: "1"}, want: []string{"a"}},
		"compatible":      {list: []*catalog.Instance{instance("b", "s", version("2", "1")), instance("c", "s", version("3"))}, target: message.Target{Version: "1"}, want: []string{"b"}},
		"no such version": {list: []*catalog.Instance{instance("c", "s", version("3"))}, target: message.Target{Version: "1"}, err: errs.NoInstance},
		"one instance":    {list: []*catalog.Instance{instance("a", "s"), instance("b", "s")}, target: message.Target{Instance: "b"}, want: []string{"b"}},
		"realm":           {list: []*catalog.Instance{instance("a", "s"), instance("b", "s", func(d *catalog.Declaration) { d.Realm = "eu-1" })}, target: message.Target{Realm: "eu*"}, want: []string{"b"}},
		"same contract": {list: []*catalog.Instance{instance("a", "s"), instance("b", "s", func(d *catalog.Declaration) {
			d.Methods = []catalog.Method{{Name: "echo", ContentTypes: []string{"json"}, Contract: "js:2"}}
		})}, target: message.Target{Contract: "js:2"}, want: []string{"b"}},
		"contract of nobody": {list: []*catalog.Instance{instance("a", "s")}, target: message.Target{Contract: "js:9"}, err: errs.NoInstance},
		"a wish":             {list: []*catalog.Instance{instance("a", "s")}, target: message.Target{Contract: "js:9", PreferContract: true}, want: []string{"a"}},
		"another type":       {list: []*catalog.Instance{instance("a", "s")}, target: message.Target{Contract: "pb:9"}, want: []string{"a"}},
	} {
		method, ct := test.method, test.ct
		if method == "" {
			method = "echo"
		}
		if ct == message.None {
			ct = message.JSON
		}
		r, err := snapshot(test.list...).Resolve("s", method, ct, test.target)
		switch {
		case test.err != "":
			if errs.CodeOf(err) != test.err {
				t.Errorf("%s: %v", name, err)
			}
		case err != nil || !slices.Equal(ids(r.Instances), test.want) || (r.Unfit != "") != test.unfit:
			t.Errorf("%s: %v, %q, %v", name, ids(r.Instances), r.Unfit, err)
		}
	}
	if a := Address(instance("a", "s")); a != "[::1]:7" {
		t.Errorf("address %s", a)
	}
}
