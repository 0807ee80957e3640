package router_test

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// TestResolutionAgainstModel: on every random set of instances and every target, the
// router asks exactly the instances that a naive reading of the rules allows, each once.
func TestResolutionAgainstModel(t *testing.T) {
	t.Parallel()
	versions := []string{"", "1.0", "1.1", "2.0"}
	rapid.Check(t, func(t *rapid.T) {
		var all []*catalog.Instance
		attached := make(map[string]bool)
		b := newBench()
		for i := range rapid.IntRange(0, 24).Draw(t, "instances") {
			pick := func(of []string, what string) string { return rapid.SampledFrom(of).Draw(t, what) }
			in := instance("in"+strconv.Itoa(i),
				version(pick(versions, "version")), realm(pick([]string{"", "global", "eu.a", "eu.b"}, "realm")),
				status(rapid.SampledFrom([]catalog.Status{catalog.OK, catalog.OK, catalog.OK, catalog.Warning, catalog.Error, catalog.Suspended, catalog.Offline}).Draw(t, "status")),
				contract(pick([]string{"", "pb:1", "pb:2", "js:1"}, "contract")))
			in.Declaration.CompatibleVersions = rapid.SliceOfN(rapid.SampledFrom(versions[1:]), 0, 2).Draw(t, "compatible")
			in.Draining = rapid.IntRange(0, 9).Draw(t, "draining") == 0
			if rapid.IntRange(0, 3).Draw(t, "zoned") == 0 {
				zone(pick([]string{"here", "there"}, "zone"))(in)
			}
			switch rapid.IntRange(0, 9).Draw(t, "methods") {
			case 0:
				in.Declaration.Methods = in.Declaration.Methods[1:]
			case 1:
				in.Declaration.Methods[0].Kind = catalog.ServerStream
			}
			all = append(all, in)
			if rapid.IntRange(0, 4).Draw(t, "attached") > 0 {
				attached[in.ID] = true
				b.attach(in.ID)
				b.links[in.ID].call = refusing(errs.Unavailable)
			}
		}
		b.index.set("default", "payments", all...)
		tg := message.Target{
			Realm:    rapid.SampledFrom([]string{"", "", "*", "eu.*", "global", "eu.a"}).Draw(t, "want realm"),
			Version:  rapid.SampledFrom([]string{"", "", "1.0", "1.1", "3.0"}).Draw(t, "want version"),
			Contract: rapid.SampledFrom([]string{"", "", "pb:1", "pb:3", "js:9"}).Draw(t, "want contract"),

			PreferContract: rapid.Bool().Draw(t, "prefer"),
		}
		if len(all) > 0 && rapid.IntRange(0, 9).Draw(t, "one") == 0 {
			tg.Instance = rapid.SampledFrom(all).Draw(t, "instance").ID
		}
		_, err := b.Call(context.Background(), request(target(tg)))
		var asked []string
		for id, l := range b.links {
			switch len(l.got()) {
			case 0:
			case 1:
				asked = append(asked, id)
			default:
				t.Fatalf("%s was asked %d times", id, len(l.got()))
			}
		}
		slices.Sort(asked)
		allowed := model(all, attached, tg)
		if d := gocmp.Diff(allowed, asked); d != "" {
			t.Fatalf("target %+v (-allowed +asked):\n%s", tg, d)
		}
		code := errs.CodeOf(err)
		if (errs.From(err).Meta[errs.MetaReason] == errs.ReasonContract) != (len(allowed) == 0 && len(model(all, attached, without(tg))) > 0) {
			t.Fatalf("%d allowed, and the error is %v", len(allowed), err)
		}
		if e := errs.From(err); e == nil || !e.NotStarted {
			t.Fatalf("%v: no proof that nothing started", err)
		}
		if (len(allowed) > 0) != (code == errs.Unavailable) {
			t.Fatalf("%d allowed, and the error is %v", len(allowed), err)
		}
		if s := b.InFlight(); s != 0 {
			t.Fatalf("%d in flight", s)
		}
	})
}

// without is a target of a caller that says nothing of its types.
func without(tg message.Target) message.Target {
	tg.Contract = ""
	return tg
}

// model is the rules as section 4 of the design words them, one after another.
func model(all []*catalog.Instance, attached map[string]bool, tg message.Target) []string {
	var left []*catalog.Instance
	for _, in := range all {
		d := in.Declaration
		unary := slices.ContainsFunc(d.Methods, func(m catalog.Method) bool { return m.Name == "charge" && m.Kind == catalog.Unary })
		inRealm := tg.Realm == "" || tg.Realm == "*" || d.Realm == tg.Realm || d.Realm == "" && tg.Realm == "global" ||
			tg.Realm == "eu.*" && (d.Realm == "eu.a" || d.Realm == "eu.b")
		if unary && inRealm && !in.Draining && (d.Status == catalog.OK || d.Status == catalog.Warning) &&
			(d.Scope != catalog.ScopeZone || in.Zone == "here") && (tg.Instance == "" || tg.Instance == in.ID) {
			left = append(left, in)
		}
	}
	keep := func(f func(*catalog.Instance) bool) (kept []*catalog.Instance) {
		for _, in := range left {
			if f(in) {
				kept = append(kept, in)
			}
		}
		return kept
	}
	runs := func(list []*catalog.Instance) bool {
		return slices.ContainsFunc(list, func(in *catalog.Instance) bool { return attached[in.ID] })
	}
	if tg.Version != "" {
		exact := keep(func(in *catalog.Instance) bool { return in.Declaration.Version == tg.Version })
		compatible := keep(func(in *catalog.Instance) bool { return slices.Contains(in.Declaration.CompatibleVersions, tg.Version) })
		if left = exact; !runs(exact) && (runs(compatible) || len(exact) == 0) {
			left = compatible
		}
	}
	contractOf := func(in *catalog.Instance) string { return in.Declaration.Methods[0].Contract }
	kin := func(in *catalog.Instance) bool {
		a, _, _ := strings.Cut(contractOf(in), ":")
		b, _, _ := strings.Cut(tg.Contract, ":")
		return a == b
	}
	own := keep(func(in *catalog.Instance) bool { return tg.Contract != "" && contractOf(in) == tg.Contract })
	wanted := tg.Contract
	switch {
	case runs(own):
	case tg.Contract != "" && !tg.PreferContract && len(keep(kin)) > 0:
		return nil
	default:
		// The newest version decides, of several of it the smallest id, and a contract of
		// which nobody runs gives way to the next. These versions order as text.
		slices.SortFunc(left, func(a, b *catalog.Instance) int {
			return cmp.Or(strings.Compare(b.Declaration.Version, a.Declaration.Version), strings.Compare(a.ID, b.ID))
		})
		for _, in := range left {
			if wanted = contractOf(in); runs(keep(func(x *catalog.Instance) bool { return contractOf(x) == wanted })) {
				break
			}
		}
	}
	var ids []string
	for _, in := range left {
		if attached[in.ID] && contractOf(in) == wanted {
			ids = append(ids, in.ID)
		}
	}
	slices.Sort(ids)
	return ids
}
