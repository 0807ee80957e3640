package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"telford.dev/telford/server/internal/config"
	"telford.dev/telford/server/internal/feed"
)

// Config returns the families of the configuration.
func Config(stats func() config.Stats) []prometheus.Collector {
	return []prometheus.Collector{
		Counter("config_changes_total", "Changes of configuration values.", func() float64 { return float64(stats().Changes) }),
		Counter("config_conflicts_total", "Changes of configuration values that were refused because they were made for another revision.", func() float64 { return float64(stats().Conflicts) }),
		Counter("config_forgotten_total", "Revisions of configuration values that were removed because of their age.", func() float64 { return float64(stats().Forgotten) }),
		Counter("config_snapshots_total", "Snapshots that watches of the configuration got because they began or had stayed behind.", func() float64 { return float64(stats().Snapshots) }),
		Gauge("config_watchers", "Watches of the configuration that are open.", func() float64 { return float64(stats().Watchers) }),
	}
}

// Feed returns the families of the feed.
func Feed(stats func() feed.Stats) []prometheus.Collector {
	return []prometheus.Collector{
		Counter("feed_events_total", "Events that were appended to the feed.", func() float64 { return float64(stats().Appended) }),
		Counter("feed_pruned_total", "Events of the feed that were removed because of their age.", func() float64 { return float64(stats().Pruned) }),
		Gauge("feed_followers", "Followers of the feed.", func() float64 { return float64(stats().Followers) }),
	}
}
