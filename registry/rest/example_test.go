package rest_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	telford "telford.dev/telford"
	"telford.dev/telford/registry/rest"
)

// Registered while the context lasts.
func Example() {
	run := func(ctx context.Context, user, key string) error {
		c, err := rest.New("https://registry.example:14444", rest.WithAPIKey(user, key))
		if err != nil {
			return err
		}
		defer c.Close()

		// Registered, heartbeating, and registered again should the registry forget it.
		h, err := c.NewHeartbeater(rest.Service{
			ID: "api-0", Tags: []string{"www"}, HeartbeatTimeout: 30 * time.Second,
			Metadata: map[string]string{"host": "10.0.0.7", "port": "8000"},
		}, rest.HeartbeaterOptions{})
		if err != nil {
			return err
		}
		if err := h.Start(ctx); err != nil {
			return err
		}
		<-ctx.Done()
		return h.Stop(context.WithoutCancel(ctx))
	}
	_ = run
}

// Who is gone, from a marker that was kept.
func ExamplePoller_Events() {
	follow := func(ctx context.Context, c *rest.Client, saved string) error {
		p, err := c.NewPoller(rest.PollerOptions{Marker: saved})
		if err != nil {
			return err
		}
		for e, err := range p.Events(ctx) {
			if err != nil {
				continue // the registry is away; it goes on where it was
			}
			if e.Type == rest.ServiceTimeout {
				gone, err := e.Service()
				if err != nil {
					return err
				}
				fmt.Println(gone.ID, "is gone since", e.Time)
			}
		}
		return nil
	}
	_ = follow
}

// The services behind a load balancer, also while the registry is away.
func ExampleServiceCache_Services() {
	backends := func(ctx context.Context, cache *rest.ServiceCache) ([]string, error) {
		list, err := cache.Services(ctx, "www")
		if err != nil {
			return nil, err
		}
		if list.Stale {
			fmt.Printf("the registry is away (%v); this is %s old\n", list.Err, list.Age)
		}
		var out []string
		for _, s := range list.Services {
			out = append(out, s.Metadata["host"]+":"+s.Metadata["port"])
		}
		return out, nil
	}
	_ = backends
}

// What the registry answered, as sentinels.
func ExampleFault() {
	create := func(ctx context.Context, c *rest.Client, s rest.Service) string {
		switch _, err := c.CreateService(ctx, s); {
		case errors.Is(err, rest.ErrServiceExists): // also telford.ErrAlreadyExists
			return "the id is taken"
		case errors.Is(err, rest.ErrLimitReached): // also telford.ErrResourceExhausted
			return "the account is full"
		case errors.Is(err, telford.ErrUnavailable): // no answer, or 503
			return "the registry is away"
		}
		return ""
	}
	_ = create
}
