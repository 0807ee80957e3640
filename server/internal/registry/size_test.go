package registry

import (
	"math"
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/catalogpb"
)

// TestSizeIsABound: no update grows larger on the wire than was counted.
func TestSizeIsABound(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		i := &catalog.Instance{Draining: true, Reachable: true, Revision: math.MaxInt64}
		grow(t, reflect.ValueOf(i).Elem())
		i.Declaration.Descriptors = nil
		// With the tag and the length of a list entry.
		if n := proto.Size(catalogpb.InstanceToProto(i)) + 8; n > sizeOf(i) {
			t.Fatalf("%d bytes, counted as %d: %+v", n, sizeOf(i), i)
		}
		s := catalog.Tombstone{
			Namespace: name(t), ID: name(t), Service: name(t), Reason: catalog.Deregistered, At: noon,
		}
		if n := proto.Size(catalogpb.TombstoneToProto(s)) + 8; n > stoneSize {
			t.Fatalf("%d bytes, counted as %d", n, stoneSize)
		}
	})
}

func name(t *rapid.T) string { return rapid.StringMatching(`[a-z]{1,128}`).Draw(t, "name") }

// grow fills texts, numbers and lists with what takes room.
func grow(t *rapid.T, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(rapid.StringOfN(rapid.RuneFrom([]rune("aé")), 0, 300, -1).Draw(t, "text"))
	case reflect.Int, reflect.Int64:
		v.SetInt(rapid.SampledFrom([]int64{-1, 0, 1, math.MaxInt64}).Draw(t, "int"))
	case reflect.Slice:
		n := rapid.IntRange(0, 3).Draw(t, "length")
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			grow(t, v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.ValueOf(rapid.MapOfN(rapid.String(), rapid.String(), 0, 3).Draw(t, "map")))
	case reflect.Struct:
		if v.CanSet() && v.Type() != reflect.TypeOf(noon) {
			for i := range v.NumField() {
				grow(t, v.Field(i))
			}
		}
	}
}
