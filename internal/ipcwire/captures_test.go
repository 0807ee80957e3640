package ipcwire_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/ipcwire"
)

// The frames that were recorded from the first implementation of this wire.
const (
	callID       = "b87265712d313739353135373838373133352d757574313776"
	callContext  = "de0004a4726f6f74b9726f6f742d313739353135373838373133352d3465706f3638a5636861696e92a57376632d61a57376632d61a5646570746802a8646561646c696e65cb427a1f7bf8967000"
	register     = "0000004b de0005 a474797065 a85245474953544552 ab736572766963654e616d65 a57376632d62 a76d6574686f6473 91 a46563686f a776657273696f6e a5312e302e30 a86d65746164617461 de0000"
	registerAck  = "00000015 de0001 a474797065 ac52454749535445525f41434b"
	heartbeat    = "00000030 de0003 a474797065 a9484541525442454154 a466726f6d a57376632d61 a974696d657374616d70 cb427a1f7bf888b000"
	call         = "000000ac de0007 a474797065 a443414c4c a26964 " + callID + " a466726f6d a57376632d61 a2746f a57376632d62 a66d6574686f64 a46563686f a6706172616d73 de0001a17601 a7636f6e74657874 " + callContext
	response     = "000000b1 de0007 a474797065 a8524553504f4e5345 a26964 " + callID + " a466726f6d a57376632d62 a2746f a57376632d61 a6737461747573 a773756363657373 a464617461 de0001a17601 a7636f6e74657874 " + callContext
	duplicate    = "0000005d de0002 a474797065 a54552524f52 a56572726f72 de0002 a76d657373616765 d9255365727669636520277376632d612720697320616c72656164792072656769737465726564 a4636f6465 b1434f4e4e454354494f4e5f4641494c4544"
	unknown      = "000000b9 de0004 a474797065 a54552524f52 a26964 b87265712d313739353135373838373134352d6c6a656c3930 a56572726f72 de0003 a76d657373616765 d920546172676574207365727669636520277376632d7a27206e6f7420666f756e64 a4636f6465 b1534552564943455f4e4f545f464f554e44 a5737461636b d92a4950434572726f723a20546172676574207365727669636520277376632d7a27206e6f7420666f756e64 a974696d657374616d70 cb427a1f7bf88ab000"
	pooled       = "0000005e de0005 a474797065 a85245474953544552 ab736572766963654e616d65 a4706f6f6c a76d6574686f6473 91a377686f a776657273696f6e a5312e302e30 a86d65746164617461 de0002 a9706f6f6c496e646578 00 a8706f6f6c53697a65 03"
	failedCall   = "de0007 a474797065 a8524553504f4e5345 a26964 " + callID + " a466726f6d a57376632d62 a2746f a57376632d61 a6737461747573 a56572726f72 a56572726f72 de0003 a76d657373616765 b74d6574686f6420276e6f706527206e6f7420666f756e64 a4636f6465 b04d4554484f445f4e4f545f464f554e44 a5737461636b d921 4950434572726f723a204d6574686f6420276e6f706527206e6f7420666f756e64 a7636f6e74657874 " + callContext
	noData       = "de0007 a474797065 a8524553504f4e5345 a26964 " + callID + " a466726f6d a57376632d62 a2746f a57376632d61 a6737461747573 a773756363657373 a464617461 d40000 a7636f6e74657874 " + callContext
	jsonContext  = `{"root":"root-1795157887135-4epo68","chain":["svc-a","svc-a"],"depth":2,"deadline":1795157887335}`
	jsonRegister = `{"type":"REGISTER","serviceName":"svc-b","methods":["echo"],"version":"1.0.0","metadata":{}}`
	jsonBeat     = `{"type":"HEARTBEAT","from":"svc-a","timestamp":1795157887115}`
	jsonCall     = `{"type":"CALL","id":"req-1795157887135-uut17v","from":"svc-a","to":"svc-b","method":"echo","params":{"v":1},"context":` + jsonContext + `}`
	jsonResponse = `{"type":"RESPONSE","id":"req-1795157887135-uut17v","from":"svc-b","to":"svc-a","status":"success","data":{"v":1},"context":` + jsonContext + `}`
	jsonUnknown  = `{"type":"ERROR","id":"req-1795157887145-ljel90","error":{"message":"Target service 'svc-z' not found","code":"SERVICE_NOT_FOUND","stack":"IPCError: Target service 'svc-z' not found"},"timestamp":1795157887147}`
	jsonRefusal  = `{"type":"ERROR","error":{"message":"Service 'svc-a' is already registered","code":"CONNECTION_FAILED"}}`
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func framed(body []byte) []byte { return ipcwire.AppendFrame(nil, body) }

var wireContext = ipcwire.Context{Root: "root-1795157887135-4epo68", Chain: []string{"svc-a", "svc-a"}, Depth: 2, Deadline: 1795157887335}

// What is written is, byte for byte, what was recorded.
func TestWritersAgainstCaptures(t *testing.T) {
	t.Parallel()
	type enc = ipcwire.Encoding
	text := func(e enc, s string) ipcwire.Value {
		return ipcwire.Value{Kind: ipcwire.String, Raw: ipcwire.AppendText(nil, e, s), Text: []byte(s)}
	}
	head := ipcwire.Call{ID: "req-1795157887135-uut17v", From: "svc-a", To: "svc-b", Method: "echo"}
	reply := ipcwire.Reply{ID: head.ID, From: "svc-b", To: "svc-a"}
	params := map[enc][]byte{ipcwire.Msgpack: unhex(t, "de0001a17601"), ipcwire.JSON: []byte(`{"v":1}`)}
	ctx := map[enc][]byte{ipcwire.Msgpack: unhex(t, callContext), ipcwire.JSON: []byte(jsonContext)}
	for _, c := range []struct {
		name    string
		write   func(enc) []byte
		msgpack string
		json    string
		size    int // of the JSON body, as it was recorded
	}{
		{"register", func(e enc) []byte {
			return ipcwire.AppendRegister(nil, e, ipcwire.Register{Name: "svc-b", Version: "1.0.0", Methods: []string{"echo"}})
		}, register, jsonRegister, 92},
		{"register of a pool", func(e enc) []byte {
			return ipcwire.AppendRegister(nil, e, ipcwire.Register{Name: "pool", Version: "1.0.0", Methods: []string{"who"}, PoolSize: 3})
		}, pooled, `{"type":"REGISTER","serviceName":"pool","methods":["who"],"version":"1.0.0","metadata":{"poolIndex":0,"poolSize":3}}`, 0},
		{"acknowledgement", func(e enc) []byte { return ipcwire.AppendRegisterAck(nil, e, false) }, registerAck, `{"type":"REGISTER_ACK"}`, 23},
		{"heartbeat", func(e enc) []byte { return ipcwire.AppendHeartbeat(nil, e, "svc-a", 1795157887115) }, heartbeat, jsonBeat, 61},
		{"call", func(e enc) []byte { return ipcwire.AppendCall(nil, e, head, params[e], wireContext) }, call, jsonCall, 216},
		{"response", func(e enc) []byte { return ipcwire.AppendSuccess(nil, e, reply, params[e], ctx[e]) }, response, jsonResponse, 221},
		{
			"response without data", func(e enc) []byte { return ipcwire.AppendSuccess(nil, e, reply, nil, ctx[e]) },
			hex.EncodeToString(framed(unhex(t, noData))), strings.Replace(jsonResponse, `"data":{"v":1},`, "", 1), 0,
		},
		{"failed response", func(e enc) []byte {
			return ipcwire.AppendFailure(nil, e, reply, "METHOD_NOT_FOUND", "Method 'nope' not found", "IPCError: Method 'nope' not found", ctx[e])
		}, hex.EncodeToString(framed(unhex(t, failedCall))), strings.Replace(jsonResponse, `"status":"success","data":{"v":1}`,
			`"status":"error","error":{"message":"Method 'nope' not found","code":"METHOD_NOT_FOUND","stack":"IPCError: Method 'nope' not found"}`, 1), 320},
		{"unknown service", func(e enc) []byte {
			return ipcwire.AppendError(nil, e, text(e, "req-1795157887145-ljel90"), "SERVICE_NOT_FOUND", "Target service 'svc-z' not found", "IPCError", 1795157887147)
		}, unknown, jsonUnknown, 209},
		{"duplicate name", func(e enc) []byte {
			return ipcwire.AppendRefusal(nil, e, "CONNECTION_FAILED", "Service 'svc-a' is already registered")
		}, duplicate, jsonRefusal, 103},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(hex.EncodeToString(unhex(t, c.msgpack)), hex.EncodeToString(c.write(ipcwire.Msgpack))); diff != "" {
				t.Errorf("msgpack (-recorded +written):\n%s", diff)
			}
			got := c.write(ipcwire.JSON)
			if diff := cmp.Diff(string(framed([]byte(c.json))), string(got)); diff != "" {
				t.Errorf("JSON (-recorded +written):\n%s", diff)
			}
			if c.size != 0 && len(got)-ipcwire.HeaderSize != c.size {
				t.Errorf("the JSON body has %d bytes, %d were recorded", len(got)-ipcwire.HeaderSize, c.size)
			}
			// Both encodings say the same.
			body := unhex(t, c.msgpack)[ipcwire.HeaderSize:]
			if text, err := ipcwire.Transcode(nil, body, ipcwire.Msgpack, ipcwire.BlobsAsBuffers); err != nil || string(text) != c.json {
				t.Errorf("rewritten in JSON: %v\n got %s\nwant %s", err, text, c.json)
			}
			if strings.Contains(c.msgpack, "d40000") {
				return // JSON has no such value to come back from
			}
			if back, err := ipcwire.Transcode(nil, []byte(c.json), ipcwire.JSON, 0); err != nil || !bytes.Equal(back, body) {
				t.Errorf("rewritten in msgpack: %v\n got %x\nwant %x", err, back, body)
			}
		})
	}
}

func TestScanCaptures(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, msgpack, json, typ string }{
		{"call", call, jsonCall, "CALL"},
		{"response", response, jsonResponse, "RESPONSE"},
		{"register", register, jsonRegister, "REGISTER"},
		{"heartbeat", heartbeat, jsonBeat, "HEARTBEAT"},
		{"acknowledgement", registerAck, `{"type":"REGISTER_ACK"}`, "REGISTER_ACK"},
		{"duplicate", duplicate, jsonRefusal, "ERROR"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, body := range [][]byte{unhex(t, c.msgpack)[ipcwire.HeaderSize:], []byte(c.json), []byte("\n " + c.json + " ")} {
				var e ipcwire.Envelope
				if err := e.Scan(body, ipcwire.Detect(body)); err != nil {
					t.Fatal(err)
				}
				if !e.Type.Is(c.typ) {
					t.Errorf("type %q, want %q", e.Type.Shown(), c.typ)
				}
				if c.name != "call" && c.name != "response" {
					continue
				}
				if diff := cmp.Diff(wireContext, e.ReadContext()); diff != "" {
					t.Errorf("context (-want +got):\n%s", diff)
				}
				if !e.ID.Is("req-1795157887135-uut17v") {
					t.Errorf("id %q", e.ID.Shown())
				}
			}
		})
	}
	var e ipcwire.Envelope
	if err := e.Scan(unhex(t, pooled)[ipcwire.HeaderSize:], ipcwire.Msgpack); err != nil {
		t.Fatal(err)
	}
	index, ok := e.PoolIndex.Float()
	size, also := e.PoolSize.Float()
	if !ok || !also || index != 0 || size != 3 {
		t.Errorf("pool %v of %v", index, size)
	}
	if diff := cmp.Diff([]string{"who"}, e.Methods.Strings()); diff != "" {
		t.Errorf("methods (-want +got):\n%s", diff)
	}
	if err := e.Scan(unhex(t, noData), ipcwire.Msgpack); err != nil || e.Data.Present() {
		t.Errorf("data without value: present %v, %v", e.Data.Present(), err)
	}
}
