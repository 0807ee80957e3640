package rest

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"telford.dev/telford/internal/errs"
)

// The defaults of a ServiceCache.
const (
	DefaultFresh       = 10 * time.Second
	DefaultRetry       = time.Second
	DefaultMaxLists    = 100
	DefaultMaxServices = 10_000
)

// CacheOptions set up a ServiceCache; zero means the default.
type CacheOptions struct {
	// Fresh is how long a list is given out without asking again. Default: 10 s.
	Fresh time.Duration
	// MaxStale is how old a list may get while the registry is away. Zero: any age.
	MaxStale time.Duration
	// Retry is the pause before a registry that is away is asked again; it is up to twice
	// as long, so that many processes do not come back together. Default: 1 s.
	Retry time.Duration
	// MaxLists is how many lists, one a tag, are kept; the one that was not asked for the
	// longest makes room. Default: 100.
	MaxLists int
	// MaxServices is how many services a list may have. Default: 10,000.
	MaxServices int
}

// ServiceCache keeps lists of services and gives out the last known one while the
// registry is away. It is safe for use by many goroutines; those who need the same list
// wait for one request, which the first of them makes.
type ServiceCache struct {
	client *Client
	opt    CacheOptions

	mu    sync.Mutex
	lists map[string]*cachedList
	uses  uint64
}

// cachedList is the list of one tag. The mutex of the cache guards it.
type cachedList struct {
	services []Service
	at       time.Time // zero: nothing is known yet
	failed   error     // of the last attempt, nil after a success
	retryAt  time.Time
	loading  chan struct{} // closed when the load under way is over
	used     uint64
}

// ServiceList is what a ServiceCache knows.
type ServiceList struct {
	// Services are sorted by id. They are the caller's to keep, not to change below the
	// first level: tags and metadata are shared.
	Services []Service
	// At is when the registry was asked, Age how long ago that is.
	At  time.Time
	Age time.Duration
	// Stale reports that the registry could not be asked; Err is why.
	Stale bool
	Err   error
}

// NewServiceCache returns an empty cache.
func (c *Client) NewServiceCache(o CacheOptions) (*ServiceCache, error) {
	if o.Fresh < 0 || o.MaxStale < 0 || o.Retry < 0 || o.MaxLists < 0 || o.MaxServices < 0 {
		return nil, errs.New(errs.InvalidArgument, "service cache: an option is negative: %+v", o)
	}
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&o.Fresh, DefaultFresh)
	set(&o.Retry, DefaultRetry)
	if o.MaxLists == 0 {
		o.MaxLists = DefaultMaxLists
	}
	if o.MaxServices == 0 {
		o.MaxServices = DefaultMaxServices
	}
	if o.MaxStale > 0 && o.MaxStale < o.Fresh {
		return nil, errs.New(errs.InvalidArgument, "service cache: MaxStale %s is less than Fresh %s", o.MaxStale, o.Fresh)
	}
	return &ServiceCache{client: c, opt: o, lists: make(map[string]*cachedList)}, nil
}

// Services returns the services with a tag, "" for all: as the registry has them when
// the list is older than Fresh and the registry can be asked, else as they were last
// known. It fails when nothing is known, when what is known is older than MaxStale, and
// when the registry answers that it will not tell. A caller whose deadline passes while
// the registry is silent gets what is known.
func (s *ServiceCache) Services(ctx context.Context, tag string) (ServiceList, error) {
	for {
		s.mu.Lock()
		l := s.list(tag)
		now := s.client.clock.Now()
		if !l.at.IsZero() && now.Sub(l.at) < s.opt.Fresh || l.failed != nil && now.Before(l.retryAt) {
			out, err := s.known(l, now, l.failed)
			s.mu.Unlock()
			return out, err
		}
		loading := l.loading
		if loading == nil {
			l.loading = make(chan struct{})
			s.mu.Unlock()
			return s.load(ctx, tag, l)
		}
		s.mu.Unlock()
		select {
		case <-loading:
		case <-ctx.Done():
			return s.late(ctx, l)
		}
	}
}

// late serves a caller whose time ran out while another one was asking.
func (s *ServiceCache) late(ctx context.Context, l *cachedList) (ServiceList, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := errs.From(ctx.Err())
	if errors.Is(err, context.Canceled) {
		return ServiceList{}, err
	}
	return s.known(l, s.client.clock.Now(), err)
}

// known gives out a list as it is; failed is why it was not refreshed. The mutex is held.
func (s *ServiceCache) known(l *cachedList, now time.Time, failed error) (ServiceList, error) {
	age := now.Sub(l.at)
	switch {
	case l.at.IsZero():
		return ServiceList{}, failed
	case s.opt.MaxStale > 0 && age > s.opt.MaxStale:
		return ServiceList{}, errs.New(errs.Unavailable, "the list of services is %s old, more than MaxStale %s: %w", age.Round(time.Millisecond), s.opt.MaxStale, failed)
	}
	out := ServiceList{Services: slices.Clone(l.services), At: l.at, Age: age}
	if age >= s.opt.Fresh && failed != nil {
		out.Stale, out.Err = true, failed
	}
	return out, nil
}

// load asks the registry and tells those who wait.
func (s *ServiceCache) load(ctx context.Context, tag string, l *cachedList) (ServiceList, error) {
	services, err := s.fetch(ctx, tag)

	s.mu.Lock()
	defer s.mu.Unlock()
	close(l.loading)
	l.loading = nil
	now := s.client.clock.Now()
	switch {
	case err == nil:
		l.services, l.at, l.failed = services, now, nil
		return s.known(l, now, nil)
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return ServiceList{}, err // says nothing about the registry: the next caller asks
	case away(err):
		l.failed = err
		l.retryAt = now.Add(s.opt.Retry + rand.N(s.opt.Retry)) //nolint:gosec // spreads load, guards nothing
		s.client.log.WarnContext(ctx, "the registry is away; the last known services are used", "tag", tag, "error", err)
		return s.known(l, now, err)
	default:
		return ServiceList{}, err
	}
}

func (s *ServiceCache) fetch(ctx context.Context, tag string) ([]Service, error) {
	services := []Service{}
	for v, err := range s.client.EachService(ctx, ServiceQuery{Tag: tag, Limit: MaxLimit}) {
		if err != nil {
			return nil, err
		}
		if len(services) == s.opt.MaxServices {
			return nil, errs.New(errs.ResourceExhausted, "list services: more than MaxServices %d; raise it, or ask for a tag", s.opt.MaxServices)
		}
		services = append(services, v)
	}
	return services, nil
}

// list returns the entry of a tag and makes room for it. The mutex is held.
func (s *ServiceCache) list(tag string) *cachedList {
	s.uses++
	l := s.lists[tag]
	if l == nil {
		if len(s.lists) >= s.opt.MaxLists {
			s.evict()
		}
		l = &cachedList{}
		s.lists[tag] = l
	}
	l.used = s.uses
	return l
}

// evict forgets the list that was not asked for the longest. One that is being loaded
// serves those who wait for it all the same. The mutex is held.
func (s *ServiceCache) evict() {
	var oldest string
	var use uint64
	for tag, l := range s.lists {
		if use == 0 || l.used < use {
			oldest, use = tag, l.used
		}
	}
	delete(s.lists, oldest)
}
