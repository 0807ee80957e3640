package rulespb_test

import (
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/limit"
	"telford.dev/telford/internal/rulespb"
)

// The fields of a type are filled by reflection, so that a field which the conversion
// forgets is a failing test and not a silent loss.
func fill(t *rapid.T, v reflect.Value) {
	if p, ok := v.Addr().Interface().(*time.Duration); ok {
		*p = time.Duration(rapid.Int64Range(1, 1<<40).Draw(t, "duration")) * time.Microsecond
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(rapid.StringN(1, 8, -1).Draw(t, "string"))
	case reflect.Int:
		v.SetInt(rapid.Int64Range(1, math.MaxInt32).Draw(t, "int"))
	case reflect.Uint64:
		v.SetUint(rapid.Uint64Min(1).Draw(t, "uint"))
	case reflect.Float64:
		v.SetFloat(rapid.Float64Range(0.001, 1e9).Draw(t, "float"))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Slice:
		n := rapid.IntRange(1, 2).Draw(t, "length")
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(t, v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	default:
		t.Fatalf("a field of kind %s: teach the test", v.Kind())
	}
	if r, ok := v.Addr().Interface().(*limit.Rule); ok {
		r.Instances = 0 // does not travel
	}
}

func some[T any](t *rapid.T) T {
	var v T
	if rapid.IntRange(0, 9).Draw(t, "zero") > 0 {
		fill(t, reflect.ValueOf(&v).Elem())
	}
	return v
}

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

func TestRoundTrips(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := some[rulespb.Rules](t)
		if diff := cmp.Diff(&r, rulespb.FromProto(travel(t, rulespb.ToProto(&r)))); diff != "" {
			t.Fatal(diff)
		}
		p := some[rulespb.Report](t)
		if diff := cmp.Diff(&p, rulespb.ReportFromProto(travel(t, rulespb.ReportToProto(&p)))); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestNilStaysNil(t *testing.T) {
	t.Parallel()
	if rulespb.ToProto(nil) != nil || rulespb.FromProto(nil) != nil || rulespb.ReportToProto(nil) != nil ||
		rulespb.ReportFromProto(nil) != nil || rulespb.PolicyToProto(nil) != nil {
		t.Error("nil became something")
	}
	if s := rulespb.PolicyFromProto(nil); s.Rules != nil {
		t.Errorf("no policy became %+v", s)
	}
}

func TestDurationsAreClamped(t *testing.T) {
	t.Parallel()
	if d := rulespb.TransportFromProto(&telfordv1.TransportRule{TimeoutUs: math.MaxInt64}).Timeout; d < 290*365*24*time.Hour {
		t.Errorf("the longest became %v", d)
	}
	if d := rulespb.TransportFromProto(&telfordv1.TransportRule{TimeoutUs: math.MinInt64}).Timeout; d >= 0 {
		t.Errorf("a negative one became %v", d)
	}
}
