package view

import (
	"slices"
	"testing"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/policy"
)

func TestHidesWhatMayNotBeCalled(t *testing.T) {
	t.Parallel()
	v := New()
	whole, none := instance("a", "s"), instance("n", "none", func(d *catalog.Declaration) { d.Methods = nil })
	v.Apply(&catalog.Update{Snapshot: true, Revision: catalog.Revision{Epoch: 1, N: 7}, Upserts: []*catalog.Instance{whole, none, instance("h", "hidden")}})
	before := v.Snapshot()
	changed := v.Changed()
	v.SetPolicy("me", policy.Compile(&policy.Set{Rules: []policy.Rule{
		{ID: "r1", Service: "me", Action: policy.Call, Effect: policy.Deny, Peer: "s", Target: "Do"},
		{ID: "r2", Service: "hidden", Action: policy.Handle, Effect: policy.Allow, Peer: "others"},
	}}))
	select {
	case <-changed:
	default:
		t.Error("nobody was told")
	}
	now := v.Snapshot()
	if now == before || now.Revision != before.Revision {
		t.Errorf("revision %v", now.Revision)
	}
	shown := now.Services["s"]
	if len(shown) != 1 || len(shown[0].Declaration.Methods) != 1 || shown[0].Declaration.Methods[0].Name != "echo" || len(whole.Declaration.Methods) != 2 {
		t.Errorf("shown of s: %+v", shown)
	}
	if len(now.Services["hidden"]) != 0 || len(now.Services["none"]) != 1 || now.Services["none"][0] != none {
		t.Errorf("shown of the others: %+v", now.Services)
	}
	if !now.Hidden("hidden") || now.Hidden("s") || now.Hidden("nobody") {
		t.Error("what is hidden is not told from what is not there")
	}
	if !v.Covers("hidden") || now.Instance("h") == nil {
		t.Error("what is hidden is not known")
	}
	for method, rule := range map[string]string{"Do": "r1", "p.S/Do": "r1"} {
		_, err := now.Resolve("s", method, message.JSON, message.Target{})
		if e := errs.From(err); e == nil || e.Code != errs.PermissionDenied || !e.NotStarted || e.Meta["rule"] != rule || e.Meta["method"] != "p.S/Do" {
			t.Errorf("%s: %+v", method, e)
		}
	}
	if r, err := now.Resolve("s", "echo", message.JSON, message.Target{}); err != nil || !slices.Equal(ids(r.Instances), []string{"a"}) {
		t.Errorf("echo: %v %v", r, err)
	}
	if _, err := now.Resolve("hidden", "echo", message.JSON, message.Target{}); errs.CodeOf(err) != errs.PermissionDenied {
		t.Errorf("hidden: %v", err)
	}
	v.Apply(&catalog.Update{Revision: catalog.Revision{Epoch: 1, N: 8}, Upserts: []*catalog.Instance{instance("b", "s")}})
	if list := v.Snapshot().Services["s"]; len(list) != 2 || list[0] != shown[0] || len(list[1].Declaration.Methods) != 1 {
		t.Errorf("after a delta: %+v", list)
	}
	v.SetPolicy("me", nil)
	if list := v.Snapshot().Services["s"]; len(list) != 2 || list[0] != whole || len(v.Snapshot().Services["hidden"]) != 1 {
		t.Errorf("without a policy: %+v", list)
	}
}
