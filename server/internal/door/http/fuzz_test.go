package httpdoor

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"telford.dev/telford/internal/errs"
)

// FuzzRequest reads paths and headers of all sorts: it must say no in order, or give a
// call that is within the limits.
func FuzzRequest(f *testing.F) {
	f.Add("/call/shop/echo", "application/json", "5s", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "X-Bin", "AP8=")
	f.Add("/call/shop/shop.v1.Shop/Buy", "", "", "", "", "")
	f.Add("/call/a%2Fb/%00", "application/msgpack; x=y", "-1ns", "00-0", "Telford-Chain", "\xff")
	f.Add("/call//", "text/xml;;", "1e9h", "", "É", strings.Repeat("a", 20<<10))
	f.Fuzz(func(t *testing.T, path, ct, timeout, parent, name, value string) {
		r := httptest.NewRequest(http.MethodPost, "http://x/", nil)
		parts := strings.SplitN(strings.TrimPrefix(path, "/call/"), "/", 2)
		r.SetPathValue("service", parts[0])
		if len(parts) == 2 {
			r.SetPathValue("method", parts[1])
		}
		r.Header = http.Header{
			"Content-Type": {ct}, headerTimeoutName: {timeout}, "Traceparent": {parent}, prefixMeta + name: {value}, "Telford-Chain": {value},
		}
		call, d, err := request(r)
		if err != nil {
			if err.Code != errs.InvalidArgument && err.Code != errs.ResourceExhausted || !err.NotStarted || err.Message == "" {
				t.Errorf("refused with %#v", err)
			}
			return
		}
		if d <= 0 || call.Method == "" || call.RequestID == "" || len(call.RequestID) > 512 {
			t.Errorf("%s, %+v", d, call)
		}
		n := 0
		for _, p := range call.Headers {
			if p.Key != strings.ToLower(p.Key) {
				t.Errorf("key %q", p.Key)
			}
			n += len(p.Key) + len(p.Value)
		}
		if n > 16<<10 {
			t.Errorf("%d bytes of headers", n)
		}
	})
}
