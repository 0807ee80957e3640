package runtime

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	restdoor "telford.dev/telford/server/internal/door/rest"
	"telford.dev/telford/server/internal/feed"
	"telford.dev/telford/server/internal/metrics"
	"telford.dev/telford/server/internal/restreg"
	"telford.dev/telford/server/internal/tx"
)

// startREST opens the REST registry, which the HTTP door serves.
func (r *Runtime) startREST(ctx context.Context) (err error) {
	b := &r.built
	b.callees = restdoor.NewCallees()
	b.services, err = restreg.Open(ctx, restreg.Config{
		DB: b.store, Storage: b.store, Instances: b.registry, Secret: b.authority.Derive("heartbeats of the REST registry"),
		Clock: b.store.Clock(), Log: r.part("rest"), Append: r.appendEvent, Quota: r.quota, Connect: r.connect,
	})
	if err != nil {
		return err
	}
	b.store.OnReopen(b.services.Reload)
	b.authority.AddTenant(b.services)
	if err := b.services.Start(ctx); err != nil {
		return err
	}
	b.rest = restdoor.New(restdoor.Config{
		Services: b.services, Namespaces: b.authority, Feed: b.feed, Values: b.config,
		Tokens:  restreg.NewTokens(b.authority, b.authority.Derive("tokens of the REST registry"), b.store.Clock()),
		Proxied: r.cfg.HTTPPlain == "proxy", Clock: b.store.Clock(), Log: r.part("rest"),
	})
	if err := b.metrics.Register(restFamilies(b.services.Stats, b.rest.Stats)...); err != nil {
		return errors.Join(err, r.stopREST(ctx))
	}
	return nil
}

// stopREST writes down where the heartbeats stand.
func (r *Runtime) stopREST(ctx context.Context) error {
	err := r.built.services.Stop(ctx)
	r.built.callees.Close()
	return err
}

// appendEvent records what happened to a service in the transaction of it.
func (r *Runtime) appendEvent(t tx.Tx, namespace string, e restreg.Event) error {
	n := feed.New{Namespace: namespace, Type: e.Type, Payload: json.RawMessage(e.Payload)}
	if e.ID != "" {
		id, err := feed.ParseID(e.ID)
		if err != nil {
			return err
		}
		n.ID = id
	}
	_, err := r.built.feed.AppendTx(t, n)
	return err
}

// quota is how many instances operators allow a namespace, 0: they have not said so.
func (r *Runtime) quota(namespace string) int {
	for _, l := range r.built.rules.Limits(namespace) {
		if l.Rule.Quota() {
			return l.Rule.Instances
		}
	}
	return 0
}

// connect makes a service callable at an address.
func (r *Runtime) connect(namespace, id, address string) (end func()) {
	detach := r.built.router.Attach(namespace, id, r.built.callees.Link(address))
	leave, _ := r.built.registry.Session(namespace, id)
	return func() {
		leave()
		detach()
	}
}

// restFamilies are the families of the REST registry.
func restFamilies(services func() restreg.Stats, door func() restdoor.Stats) []prometheus.Collector {
	return []prometheus.Collector{
		metrics.Gauge("rest_services", "Services of the REST registry.", func() float64 { return float64(services().Services) }),
		metrics.Counter("rest_heartbeats_total", "Heartbeats that the REST registry has taken.", func() float64 { return float64(services().Beats) }),
		metrics.Counter("rest_timeouts_total", "Services of the REST registry whose heartbeat did not come.", func() float64 { return float64(services().Timeouts) }),
		metrics.Counter("rest_requests_total", "Requests to the REST registry.", func() float64 { return float64(door().Requests) }),
		metrics.Counter("rest_faults_total", "Requests to the REST registry that were answered with a fault.", func() float64 { return float64(door().Faults) }),
		metrics.Counter("rest_tokens_total", "Tokens that were issued for keys.", func() float64 { return float64(door().Tokens) }),
	}
}
