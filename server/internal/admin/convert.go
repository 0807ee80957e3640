package admin

import (
	"fmt"
	"math"

	"telford.dev/telford/internal/catalog"
	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
)

func instanceToProto(i *catalog.Instance) *adminv1.Instance {
	d := &i.Declaration
	out := &adminv1.Instance{
		Id: i.ID, Name: d.Service, Namespace: i.Namespace, Realm: d.Realm, Version: d.Version,
		CompatibleVersions: d.CompatibleVersions, Status: string(d.Status), StatusMessage: d.StatusMessage,
		Reachable: i.Reachable, Draining: i.Draining, Tags: d.Tags, Metadata: d.Metadata, Capabilities: d.Capabilities,
		Scope: string(d.Scope), Zone: i.Zone, Locality: d.Locality, Weight: int32(d.Weight), Ttl: d.TTL.String(),
		Door: i.Door, Sdk: d.SDK, KeyId: i.KeyID, RegisteredAt: timestamp(i.Registered), Revision: i.Revision,
	}
	if !i.FailingUntil.IsZero() {
		out.FailingUntil = timestamp(i.FailingUntil)
	}
	for _, m := range d.Methods {
		out.Methods = append(out.Methods, &adminv1.Method{
			Name: m.Name, Kind: string(m.Kind), Contract: m.Contract, ContentTypes: m.ContentTypes,
			InputMessage: m.InputMessage, OutputMessage: m.OutputMessage,
			InputSchema: m.InputSchema, OutputSchema: m.OutputSchema, Description: m.Description,
		})
	}
	for _, e := range d.Endpoints {
		out.Endpoints = append(out.Endpoints, &adminv1.Endpoint{Kind: e.Kind, Host: e.Host, Port: int32(e.Port)})
	}
	for _, m := range d.Menu {
		out.Menu = append(out.Menu, &adminv1.MenuItem{
			Id: m.ID, Label: m.Label, Kind: m.Kind, Path: m.Path, Icon: m.Icon, Order: int32(m.Order), Roles: m.Roles,
		})
	}
	for _, x := range d.Dependencies {
		out.Dependencies = append(out.Dependencies, &adminv1.Dependency{Kind: x.Kind, Target: x.Target, Names: x.Names})
	}
	return out
}

func tombstoneToProto(t catalog.Tombstone) *adminv1.Tombstone {
	return &adminv1.Tombstone{Id: t.ID, Name: t.Service, Namespace: t.Namespace, Reason: string(t.Reason), At: timestamp(t.At)}
}

// tombstoneKey orders tombstones from the newest to the oldest.
func tombstoneKey(t catalog.Tombstone) string {
	return fmt.Sprintf("%020d\x00%s\x00%s", math.MaxInt64-t.At.UnixMicro(), t.Namespace, t.ID)
}

func updateToProto(u *catalog.Update) *adminv1.ServiceUpdate {
	out := &adminv1.ServiceUpdate{
		Snapshot: u.Snapshot, Revision: &adminv1.Revision{Epoch: u.Revision.Epoch, N: u.Revision.N},
	}
	for _, i := range u.Upserts {
		out.Upserts = append(out.Upserts, instanceToProto(i))
	}
	for _, t := range u.Removals {
		out.Removals = append(out.Removals, tombstoneToProto(t))
	}
	return out
}
