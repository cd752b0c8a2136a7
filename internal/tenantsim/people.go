package tenantsim

import (
	"encoding/json"
	"math/rand/v2"
	"strconv"
	"time"
)

// Names and how their owners' accounts are spelt.
var (
	surnames = [...][2]string{{"王", "wang"}, {"李", "li"}, {"张", "zhang"}, {"刘", "liu"},
		{"陈", "chen"}, {"杨", "yang"},
		{"黄", "huang"}, {"赵", "zhao"}, {"吴", "wu"}, {"周", "zhou"}, {"徐", "xu"}, {"孙", "sun"},
		{"马", "ma"}, {"朱", "zhu"},
		{"胡", "hu"}, {"郭", "guo"}, {"何", "he"}, {"林", "lin"}, {"高", "gao"}, {"罗", "luo"},
		{"欧阳", "ouyang"}, {"诸葛", "zhuge"}}
	givenNames = [...][2]string{{"伟", "wei"}, {"芳", "fang"}, {"娜", "na"}, {"敏", "min"},
		{"静", "jing"}, {"丽", "li"}, {"强", "qiang"},
		{"磊", "lei"}, {"军", "jun"}, {"洋", "yang"}, {"勇", "yong"}, {"艳", "yan"}, {"杰", "jie"},
		{"娟", "juan"}, {"涛", "tao"},
		{"明", "ming"}, {"超", "chao"}, {"秀英", "xiuying"}, {"桂兰", "guilan"}, {"建国", "jianguo"},
		{"志强", "zhiqiang"},
		{"婷婷", "tingting"}, {"晓东", "xiaodong"}, {"海燕", "haiyan"}, {"子轩", "zixuan"},
		{"雨桐", "yutong"}}
	areas  = [...]string{"华东", "华南", "华北", "西南", "西北", "东北", "华中", "港澳"}
	admins = [...]string{"系统管理员", "admin", "运维-李工", "项目经理"}
	scenes = [...]string{`"FTTH"`, `"Wireless"`, `"微波"`, `"数据中心"`}
)

// onDuty is the share of agents on duty that a tenant starts with and that churn tends to.
const onDuty = 0.27

// person makes an agent's row as the vendor shows it: every documented field or null, `type` as a
// string, dates that lag their timestamps, and a few fields that no page of the vendor's lists.
func person(seed uint64, tenant, id int64) (json.RawMessage, facts) {
	r := rand.New(rand.NewPCG(seed, uint64(id)))
	chance := func(p float64) bool { return r.Float64() < p }
	sur, given := surnames[r.IntN(len(surnames))], givenNames[r.IntN(len(givenNames))]
	f := facts{id: id, hasID: true, typ: 10, hasType: true, hasStatus: true, wellFormed: true}
	if chance(0.15) {
		f.typ = int64(r.IntN(3))
	}
	if chance(onDuty) {
		f.status = 1
	}
	created := time.Date(2020, 1, 6, 0, 0, 0, 0,
		time.UTC).Add(time.Duration(r.Int64N(int64(5 * 365 * 24 * time.Hour))))
	updated := created.Add(time.Duration(r.Int64N(int64(300 * 24 * time.Hour))))
	signedIn := updated.Add(-time.Duration(r.Int64N(int64(6 * time.Hour))))
	userID := 102400 + id*7%90000
	adminID := int64(1000 + r.IntN(len(admins)))

	b := make(json.RawMessage, 0, 1024)
	sep := byte('{')
	raw := func(name, value string) {
		b = append(append(append(append(append(b, sep), '"'), name...), `":`...), value...)
		sep = ','
	}
	str := func(name, value string) { raw(name, `"`+value+`"`) } // no value here needs escaping
	num := func(name string, n int64) { raw(name, strconv.FormatInt(n, 10)) }
	orNull := func(p float64, name, value string) {
		if chance(p) {
			value = "null"
		}
		raw(name, value)
	}

	str("agentCode", uuid(r))
	orNull(0.6, "productType", `"5G"`)
	orNull(0.5, "deliveryScene", scenes[r.IntN(len(scenes))])
	orNull(0.7, "businessType", `"`+strconv.Itoa(r.IntN(4))+`"`)
	str("agentAccount", given[1]+"."+sur[1]+strconv.FormatInt(id, 10))
	str("agentName", sur[0]+given[0])
	str("type", strconv.FormatInt(f.typ, 10))
	switch { // an area, the empty string, or null
	case chance(0.3):
		str("areaName", "")
	default:
		orNull(0.1, "areaName", `"`+areas[r.IntN(len(areas))]+`"`)
	}
	orNull(0.4, "cityId", `"`+strconv.Itoa(110000+r.IntN(500)*100)+`"`)
	str("createName", admins[adminID-1000])
	str("lastUpdateName", sur[0]+given[0])
	switch { // absent for who never signed in, null in some old records
	case chance(0.1):
	case chance(0.1):
		raw("agentSignInTime", "null")
		raw("agentSignInDate", "null")
	default:
		num("agentSignInTime", signedIn.UnixMilli())
		num("agentSignInDate", signedIn.UnixMilli())
	}
	num("agentId", id)
	num("tenantId", tenant)
	num("userId", userID)
	num("createdBy", adminID)
	num("lastUpdatedBy", userID)
	num("onlineStatus", f.status)
	num("isArea", int64(r.IntN(2)))
	num("capacity", int64(1+r.IntN(10)))
	num("deleteFlag", 0)
	num("creationTimestamp", created.UnixMilli())
	num("lastUpdateTimestamp", updated.UnixMilli())
	str("creationDate", date(created.Add(-lag(seed, id))))
	str("lastUpdateDate", date(updated.Add(-lag(seed, id))))
	str("appName", "isdp-opentask")
	orNull(0.5, "entityName", `"OnlineAgentEntity"`)

	// Undocumented, and awkward to carry: numbers that lose digits on the way through a float64,
	// escapes, nesting, spaces.
	num("version", int64(r.IntN(40)))
	raw("remark", "null")
	if chance(0.3) {
		raw("rowVersion", strconv.FormatUint(1<<62+r.Uint64N(1<<61), 10))
	}
	if chance(0.2) {
		raw("ext", `{"skills": ["ftth", "5g"], "score": 4.50, "note": "A\u0026B \u5ea7\u5e2d"}`)
	}
	return append(b, '}'), f
}

// lag is by how much an agent's dates are behind their timestamps: some seconds, and for some a
// time zone besides.
func lag(seed uint64, id int64) time.Duration {
	h := rand.NewPCG(seed^0x1a6, uint64(id)).Uint64()
	d := time.Duration(h%90) * time.Second
	if h>>32%5 == 0 {
		d += 8 * time.Hour
	}
	return d
}

// date writes a time as the vendor does, whole seconds only.
func date(t time.Time) string {
	return t.UTC().Truncate(time.Second).Format("2006-01-02T15:04:05.000+00:00")
}

// uuid makes a version 4 UUID.
func uuid(r *rand.Rand) string {
	const hex = "0123456789abcdef"
	b := []byte("xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx")
	for i, c := range b {
		switch c {
		case 'x':
			b[i] = hex[r.IntN(16)]
		case 'y':
			b[i] = hex[8+r.IntN(4)]
		}
	}
	return string(b)
}
