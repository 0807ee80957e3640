package catalogpb_test

import (
	"math"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/catalogpb"
)

// The fields of a type are filled by reflection, so that a field which the conversion
// forgets is a failing test and not a silent loss.

func fill(t *rapid.T, v reflect.Value) {
	switch p := v.Addr().Interface().(type) {
	case *time.Time:
		*p = time.UnixMicro(rapid.Int64Range(1, 1<<50).Draw(t, "instant")).UTC()
		return
	case *time.Duration:
		*p = time.Duration(rapid.Int64Range(1, 1<<40).Draw(t, "duration")) * time.Microsecond
		return
	case *catalog.Status:
		*p = rapid.SampledFrom([]catalog.Status{catalog.OK, catalog.Warning, catalog.Error, catalog.Suspended, catalog.Offline}).Draw(t, "status")
		return
	case *catalog.Kind:
		*p = rapid.SampledFrom([]catalog.Kind{catalog.Unary, catalog.ServerStream}).Draw(t, "kind")
		return
	case *catalog.Scope:
		*p = rapid.SampledFrom([]catalog.Scope{catalog.ScopeZone, catalog.ScopeGlobal}).Draw(t, "scope")
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(rapid.StringN(1, 8, -1).Draw(t, "string"))
	case reflect.Int, reflect.Int64:
		v.SetInt(rapid.Int64Range(1, math.MaxInt32).Draw(t, "int"))
	case reflect.Uint64:
		v.SetUint(rapid.Uint64Min(1).Draw(t, "uint"))
	case reflect.Float64:
		v.SetFloat(rapid.Float64Range(0.001, 1e9).Draw(t, "float"))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint8:
		v.SetUint(uint64(rapid.Byte().Draw(t, "byte")))
	case reflect.Slice:
		n := rapid.IntRange(1, 2).Draw(t, "length")
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(t, v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.ValueOf(rapid.MapOfN(rapid.String(), rapid.String(), 1, 3).Draw(t, "map")))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	default:
		t.Fatalf("a field of kind %s: teach the test", v.Kind())
	}
}

// some returns a T with every field set, or the zero T.
func some[T any](t *rapid.T) T {
	var v T
	if rapid.IntRange(0, 9).Draw(t, "zero") > 0 {
		fill(t, reflect.ValueOf(&v).Elem())
	}
	return v
}

// travel sends a message over the wire.
func travel[M proto.Message](t *rapid.T, m M) M {
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	out := m.ProtoReflect().New().Interface().(M)
	if err := proto.Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func same(t *rapid.T, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

func TestRoundTrips(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		i := some[catalog.Instance](t)
		same(t, &i, catalogpb.InstanceFromProto(travel(t, catalogpb.InstanceToProto(&i))))
		d := some[catalog.Declaration](t)
		same(t, &d, catalogpb.DeclarationFromProto(travel(t, catalogpb.DeclarationToProto(&d))))
		m := some[catalog.Method](t)
		same(t, m, catalogpb.MethodFromProto(travel(t, catalogpb.MethodToProto(m))))
		s := some[catalog.Tombstone](t)
		same(t, s, catalogpb.TombstoneFromProto(travel(t, catalogpb.TombstoneToProto(s))))
		u := some[catalog.Update](t)
		same(t, &u, catalogpb.UpdateFromProto(travel(t, catalogpb.UpdateToProto(&u))))
		w := some[[]catalog.DeclarationWarning](t)
		same(t, w, catalogpb.WarningsFromProto(catalogpb.WarningsToProto(w)))
		r := some[catalog.Revision](t)
		same(t, r, catalogpb.RevisionFromProto(catalogpb.RevisionToProto(r)))
	})
}

func TestNilStaysNil(t *testing.T) {
	t.Parallel()
	if catalogpb.InstanceToProto(nil) != nil || catalogpb.InstanceFromProto(nil) != nil ||
		catalogpb.DeclarationToProto(nil) != nil || catalogpb.DeclarationFromProto(nil) != nil ||
		catalogpb.UpdateToProto(nil) != nil || catalogpb.UpdateFromProto(nil) != nil ||
		catalogpb.RevisionToProto(catalog.Revision{}) != nil {
		t.Fatal("nil became something")
	}
}

func TestEveryWordHasANumber(t *testing.T) {
	t.Parallel()
	for n, name := range telfordv1.InstanceStatus_name {
		s := catalogpb.StatusFromProto(telfordv1.InstanceStatus(n))
		if s.Known() != (n != 0) || catalogpb.StatusToProto(s) != telfordv1.InstanceStatus(n) {
			t.Errorf("%s became %q", name, s)
		}
	}
	for n, name := range telfordv1.MethodKind_name {
		k := catalogpb.KindFromProto(telfordv1.MethodKind(n))
		if (k == "") != (n == 0) || catalogpb.KindToProto(k) != telfordv1.MethodKind(n) {
			t.Errorf("%s became %q", name, k)
		}
	}
	// What a newer version says must be refused, not taken for the default.
	d := catalogpb.DeclarationFromProto(&telfordv1.Declaration{Service: "a", Status: 99, Scope: 99, Methods: []*telfordv1.Method{{Name: "m", Kind: 99}}})
	if d.Status == "" || d.Status.Known() || d.Scope == "" || d.Methods[0].Kind == "" {
		t.Errorf("%+v", d)
	}
}

func TestNumbersOutOfRange(t *testing.T) {
	t.Parallel()
	p := catalogpb.DeclarationToProto(&catalog.Declaration{
		Weight: -1, Endpoints: []catalog.Endpoint{{Port: -5}}, Menu: []catalog.MenuItem{{Order: math.MaxInt}},
	})
	if p.GetWeight() != 0 || p.GetEndpoints()[0].GetPort() != 0 || p.GetMenu()[0].GetOrder() != math.MaxInt32 {
		t.Errorf("%v", p)
	}
	d := catalogpb.DeclarationFromProto(&telfordv1.Declaration{TtlUs: math.MaxInt64, Weight: math.MaxUint32})
	if d.TTL < 290*365*24*time.Hour || d.Weight < 1<<30 {
		t.Errorf("%+v", d)
	}
	d = catalogpb.DeclarationFromProto(&telfordv1.Declaration{TtlUs: math.MinInt64})
	if d.TTL >= 0 {
		t.Errorf("%+v", d)
	}
}

func TestEncoderSaysTheSame(t *testing.T) {
	t.Parallel()
	var e catalogpb.Encoder
	rapid.Check(t, func(t *rapid.T) {
		u := some[catalog.Update](t)
		for range 2 {
			b, err := e.ServerMessage(&u)
			if err != nil {
				t.Fatal(err)
			}
			got := new(telfordv1.ServerMessage)
			if err := proto.Unmarshal(b, got); err != nil {
				t.Fatal(err)
			}
			want := &telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Watch{Watch: catalogpb.UpdateToProto(&u)}}
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

func TestEncoderRefusesWhatNoWireCarries(t *testing.T) {
	t.Parallel()
	var e catalogpb.Encoder
	for _, u := range []*catalog.Update{
		{Upserts: []*catalog.Instance{{ID: "\xff"}}},
		{Removals: []catalog.Tombstone{{ID: "\xff"}}},
	} {
		if b, err := e.ServerMessage(u); err == nil {
			t.Errorf("%+v became %x", u, b)
		}
	}
}

// TestEncoderForgets: an encoding goes with its instance.
func TestEncoderForgets(t *testing.T) {
	t.Parallel()
	e := new(catalogpb.Encoder)
	kept := &catalog.Instance{ID: "in_kept"}
	for range 100 {
		u := &catalog.Update{Upserts: []*catalog.Instance{{ID: "in_1"}, kept}}
		if _, err := e.ServerMessage(u); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for e.Len() > 1 && time.Now().Before(deadline) {
		runtime.GC()
	}
	if e.Len() != 1 {
		t.Fatalf("%d encodings are kept", e.Len())
	}
	runtime.KeepAlive(kept)
}
