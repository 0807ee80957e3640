package rest_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"telford.dev/telford/registry/rest"
)

// TestIteration: whatever the size of the pages and the marker, each service comes once
// and in order.
func TestIteration(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		ids := rapid.SliceOfNDistinct(rapid.StringMatching(`[A-Za-z0-9_.-]{3,6}`), 0, 40, rapid.ID).Draw(rt, "ids")
		limit := rapid.IntRange(0, 12).Draw(rt, "limit")
		marker := rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[a-z]{3}`)).Draw(rt, "marker")
		f := newFake()
		var want []string
		for _, id := range ids {
			f.services[id] = &fakeService{Service: rest.Service{ID: id}, deadline: time.Now().Add(time.Hour)}
			if id >= marker {
				want = append(want, id)
			}
		}
		slices.Sort(want)
		var got []string
		for s, err := range f.client(t).EachService(t.Context(), rest.ServiceQuery{Limit: limit, Marker: marker}) {
			if err != nil {
				rt.Fatal(err)
			}
			got = append(got, s.ID)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Errorf("services (-want +got):\n%s", diff)
		}
	})
}

// TestIterationOverOddPages: servers that begin a page with the last item of the one
// before, that leave a page empty, and that do not advance.
func TestIterationOverOddPages(t *testing.T) {
	t.Parallel()
	const value = `{"id":%q,"value":"x"}`
	page := func(next string, ids ...string) string {
		values := make([]string, len(ids))
		for i, id := range ids {
			values[i] = fmt.Sprintf(value, id)
		}
		return `{"values":[` + strings.Join(values, ",") + `],"metadata":{"next_marker":` + next + `}}`
	}
	pages := map[string]string{
		"/v1.0/7777/configuration":            page(`"bbb"`, "aaa", "bbb"),
		"/v1.0/7777/configuration?marker=bbb": page(`"ccc"`, "bbb", "bbc"),
		"/v1.0/7777/configuration?marker=ccc": page(`"ddd"`),
		"/v1.0/7777/configuration?marker=ddd": page(`"ddd"`, "ddd"),
	}
	srv := newCanned(t, withToken(func(r received) answer { return answer{status: 200, body: pages[r.URI]} }))
	var got []string
	for v, err := range newClient(t, srv.URL).EachConfiguration(t.Context(), rest.ConfigurationQuery{}) {
		if err != nil {
			got = append(got, err.Error())
		} else {
			got = append(got, v.ID)
		}
	}
	want := []string{"aaa", "bbb", "bbc", "ddd", `internal: the list does not advance: the page at marker "ddd" names itself as the next`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
}

// TestIterationStops where the loop breaks off and where a page fails.
func TestIterationStops(t *testing.T) {
	t.Parallel()
	f := newFake()
	for i := range 5 {
		f.put(fmt.Sprint("key", i), "x")
	}
	c := f.client(t)
	for range c.EachEvent(t.Context(), rest.EventQuery{Limit: 2}) {
		break
	}
	if n := f.count("GET /events"); n != 1 {
		t.Errorf("%d pages for one event", n)
	}
	n := 0
	var last error
	for _, err := range c.EachEvent(t.Context(), rest.EventQuery{Limit: 2}) {
		if n++; n == 2 {
			f.set(func(f *fake) { f.status = 500 })
		}
		last = err
	}
	if n != 3 || !errors.Is(last, rest.ErrInternal) {
		t.Errorf("%d steps, the last with %v", n, last)
	}
}
