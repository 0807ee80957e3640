package runtime

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
	"telford.dev/telford/server/internal/registry"
)

// info describes the node, for the administration, which adds the alarms.
func (r *Runtime) info() *adminv1.Info {
	b, build := &r.built, BuildInfo()
	instances := b.registry.List(registry.Filter{})
	type name struct{ namespace, service string }
	services := make(map[name]bool)
	for _, i := range instances {
		services[name{i.Namespace, i.Declaration.Service}] = true
	}
	doors := make(map[string]string)
	for _, d := range r.Doors() {
		doors[d.Name] = d.Addr
	}
	return &adminv1.Info{
		Version: &adminv1.Version{Version: build.Version, Commit: build.Commit, GoVersion: build.GoVersion, Platform: build.Platform},
		NodeId:  b.authority.Trust().Identity().Instance, Zone: r.cfg.Zone, TrustDomain: b.authority.TrustDomain(),
		StartedAt: timestamp(r.started), Doors: doors, Store: b.store.Kind(), Dev: r.cfg.Dev,
		Instances: int32(len(instances)), Services: int32(len(services)), Settings: r.cfg.Effective(),
	}
}

func timestamp(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }
