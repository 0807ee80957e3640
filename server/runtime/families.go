package runtime

import (
	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/server/internal/door/accept"
	"telford.dev/telford/server/internal/metrics"
	"telford.dev/telford/server/internal/registry"
)

// registerMetrics adds the families of the parts; those of the store are there.
func (r *Runtime) registerMetrics() error {
	b := &r.built
	if err := b.metrics.Register(append(metrics.Config(b.config.Stats), metrics.Feed(b.feed.Stats)...)...); err != nil {
		return err
	}
	return b.metrics.Register(
		metrics.Calls(b.router.Stats),
		metrics.Rules(b.rules.Stats),
		metrics.Instances(func() []*catalog.Instance { return b.registry.List(registry.Filter{}) }),
		metrics.Alarms(b.alarms.List),
		metrics.Idempotency(b.keys.Stats),
		metrics.Counter("registrations_total", "Registrations that changed something.", func() float64 { return float64(b.registry.Stats().Registrations) }),
		metrics.Counter("deregistrations_total", "Instances that were taken off the map.", func() float64 { return float64(b.registry.Stats().Deregistrations) }),
		metrics.Counter("expirations_total", "Instances whose lease ran out.", func() float64 { return float64(b.registry.Stats().Expirations) }),
		metrics.Gauge("expirations_held", "Instances that stay registered although their leases ran out, because too many did.", func() float64 { return float64(b.registry.Stats().Held) }),
		metrics.Gauge("watchers", "Watches of the registry that are open.", func() float64 { return float64(b.registry.Stats().Watchers) }),
		metrics.Gauge("sessions", "Sessions that are held, cut ones within their window included.", func() float64 {
			all, _ := b.sessions.Counts()
			return float64(all)
		}),
		metrics.Gauge("sessions_connected", "Sessions that are connected.", func() float64 {
			_, connected := b.sessions.Counts()
			return float64(connected)
		}),
		metrics.Gauge("connections", "Open connections on the port of links and gRPC.", func() float64 {
			if b.accept == nil {
				return 0
			}
			return float64(b.accept.Open())
		}),
		metrics.Gauge("handshakes", "Handshakes under way on the port of links and gRPC.", r.accepting(func(s accept.Stats) float64 { return float64(s.Handshakes) })),
		metrics.Gauge("handshakes_waiting", "Connections that wait for their handshake.", r.accepting(func(s accept.Stats) float64 { return float64(s.Waiting) })),
		metrics.Counter("connections_refused_total", "Connections that were told to come back later, because many came at once.", r.accepting(func(s accept.Stats) float64 { return float64(s.Refused) })),
		metrics.Gauge("ready", "1 while the runtime takes work.", func() float64 {
			if r.ready.Load() {
				return 1
			}
			return 0
		}),
		metrics.Gauge("start_time_seconds", "When the runtime started.", func() float64 { return float64(r.started.UnixMicro()) / 1e6 }),
		metrics.Certificates(b.authority.PKI, b.authority.Trust().Clock().Now),
		metrics.Gauge("certificate_expiry_timestamp_seconds", "When the runtime's own certificate ends.", func() float64 {
			return float64(b.authority.Trust().Identity().NotAfter.Unix())
		}),
	)
}

// accepting is a figure of the port of links and gRPC, 0 where that is closed.
func (r *Runtime) accepting(figure func(accept.Stats) float64) func() float64 {
	return func() float64 {
		if r.built.accept == nil {
			return 0
		}
		return figure(r.built.accept.Stats())
	}
}
