// Package catalogpb owns the wire form of the catalog: package catalog to telford.v1
// and back. It converts and does not judge: what arrives is validated by
// catalog.Normalize. It starts no goroutines. Conversions to the wire share strings,
// slices and maps with what they are given, and those from the wire with the message,
// so neither side may be changed afterwards.
package catalogpb

import (
	"math"
	"time"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/catalog"
)

// InstanceToProto converts an instance; nil gives nil.
func InstanceToProto(i *catalog.Instance) *telfordv1.Instance {
	if i == nil {
		return nil
	}
	return &telfordv1.Instance{
		Namespace:    i.Namespace,
		Id:           i.ID,
		Declaration:  DeclarationToProto(&i.Declaration),
		Reachable:    i.Reachable,
		Draining:     i.Draining,
		RegisteredUs: micros(i.Registered),
		Revision:     i.Revision,
		KeyId:        i.KeyID,
		Door:         i.Door,
		Zone:         i.Zone,

		FailingUntilUs: micros(i.FailingUntil),
	}
}

// InstanceFromProto is the reverse; nil gives nil.
func InstanceFromProto(p *telfordv1.Instance) *catalog.Instance {
	if p == nil {
		return nil
	}
	i := &catalog.Instance{
		Namespace:  p.GetNamespace(),
		ID:         p.GetId(),
		Reachable:  p.GetReachable(),
		Draining:   p.GetDraining(),
		Registered: instant(p.GetRegisteredUs()),
		Revision:   p.GetRevision(),
		KeyID:      p.GetKeyId(),
		Door:       p.GetDoor(),
		Zone:       p.GetZone(),

		FailingUntil: instant(p.GetFailingUntilUs()),
	}
	if d := DeclarationFromProto(p.GetDeclaration()); d != nil {
		i.Declaration = *d
	}
	return i
}

// TombstoneToProto converts a tombstone.
func TombstoneToProto(t catalog.Tombstone) *telfordv1.Tombstone {
	return &telfordv1.Tombstone{
		Namespace: t.Namespace,
		Id:        t.ID,
		Service:   t.Service,
		Reason:    string(t.Reason),
		AtUs:      micros(t.At),
	}
}

// TombstoneFromProto is the reverse; nil gives the zero value.
func TombstoneFromProto(p *telfordv1.Tombstone) catalog.Tombstone {
	return catalog.Tombstone{
		Namespace: p.GetNamespace(),
		ID:        p.GetId(),
		Service:   p.GetService(),
		Reason:    catalog.Reason(p.GetReason()),
		At:        instant(p.GetAtUs()),
	}
}

// RevisionToProto converts a revision; the zero value gives nil.
func RevisionToProto(r catalog.Revision) *telfordv1.Revision {
	if r == (catalog.Revision{}) {
		return nil
	}
	return &telfordv1.Revision{Epoch: r.Epoch, N: r.N}
}

// RevisionFromProto is the reverse.
func RevisionFromProto(p *telfordv1.Revision) catalog.Revision {
	return catalog.Revision{Epoch: p.GetEpoch(), N: p.GetN()}
}

// UpdateToProto converts one step of a watch; nil gives nil. Who sends one update to
// many uses an Encoder.
func UpdateToProto(u *catalog.Update) *telfordv1.WatchUpdate {
	if u == nil {
		return nil
	}
	return &telfordv1.WatchUpdate{
		Snapshot: u.Snapshot,
		Revision: RevisionToProto(u.Revision),
		Upserts:  each(u.Upserts, InstanceToProto),
		Removals: each(u.Removals, TombstoneToProto),
	}
}

// UpdateFromProto is the reverse; nil gives nil.
func UpdateFromProto(p *telfordv1.WatchUpdate) *catalog.Update {
	if p == nil {
		return nil
	}
	return &catalog.Update{
		Snapshot: p.GetSnapshot(),
		Revision: RevisionFromProto(p.GetRevision()),
		Upserts:  each(p.GetUpserts(), InstanceFromProto),
		Removals: each(p.GetRemovals(), TombstoneFromProto),
	}
}

// WarningToProto converts a warning about a declaration.
func WarningToProto(w catalog.DeclarationWarning) *telfordv1.Warning {
	return &telfordv1.Warning{Declaration: w.Declaration, Value: w.Value, Side: w.Side, Reason: w.Reason}
}

// WarningFromProto is the reverse; nil gives the zero value.
func WarningFromProto(p *telfordv1.Warning) catalog.DeclarationWarning {
	return catalog.DeclarationWarning{
		Declaration: p.GetDeclaration(), Value: p.GetValue(), Side: p.GetSide(), Reason: p.GetReason(),
	}
}

// WarningsToProto converts a list of warnings.
func WarningsToProto(list []catalog.DeclarationWarning) []*telfordv1.Warning {
	return each(list, WarningToProto)
}

// WarningsFromProto is the reverse.
func WarningsFromProto(list []*telfordv1.Warning) []catalog.DeclarationWarning {
	return each(list, WarningFromProto)
}

// each converts a list; an empty one gives nil.
func each[A, B any](list []A, f func(A) B) []B {
	if len(list) == 0 {
		return nil
	}
	out := make([]B, len(list))
	for i, a := range list {
		out[i] = f(a)
	}
	return out
}

// micros is the instant on the wire: microseconds since 1970 UTC; 0 for none.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func instant(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// duration clamps: a duration beyond what Go holds is as good as the longest.
func duration(us int64) time.Duration {
	const most = math.MaxInt64 / int64(time.Microsecond)
	return time.Duration(min(max(us, -most), most)) * time.Microsecond
}
