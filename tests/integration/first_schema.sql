-- What the last agent with the first schema (0001) had written when it was killed: two entries, a task that is alive.
BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE audit (
	seq INTEGER NOT NULL, 
	at_ms BIGINT NOT NULL, 
	event VARCHAR(64) NOT NULL, 
	fields TEXT NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	PRIMARY KEY (seq)
);
INSERT INTO "audit" VALUES(1,1795623976277,'agent_started','{"epoch":1,"pid":27009,"uid":0}','86378a4757c5f77ab00bfc904969883f4b841e33cefbb5ff974b8b06b1cd60d2');
INSERT INTO "audit" VALUES(2,1795623976539,'entry_created','{"by_pid":27018,"by_uid":0,"entry_id":"0e46abfe-8c28-42fe-84f5-8adfc5f05826","revision":0,"spiffe_id":"spiffe://example.org/agent/triage"}','90737253ac3fe51ff423cf5cdb41c2eca06beb56332131181e4d580748a202b2');
INSERT INTO "audit" VALUES(3,1795623976938,'entry_created','{"by_pid":27026,"by_uid":0,"entry_id":"1a52375c-9f81-488c-b817-e69afdf1d630","revision":0,"spiffe_id":"spiffe://example.org/web"}','8b668855eb848636b2d19eabea0696a8a0e29964c96dc80e3509e407c9875df6');
INSERT INTO "audit" VALUES(4,1795623977328,'task_begun','{"pid":27034,"spiffe_id":"spiffe://example.org/agent/triage","task":"tsk_sgS7Vlk7uxuL61jBCxkvVw","type":"triage-ticket","uid":0}','ed9d918e8cf9eacad6380707071a141a261c11b55f17f6b897f2a3c04be9906e');
CREATE TABLE entries (
	id VARCHAR(255) NOT NULL, 
	identity_digest VARCHAR(64) NOT NULL, 
	document TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (identity_digest)
);
INSERT INTO "entries" VALUES('0e46abfe-8c28-42fe-84f5-8adfc5f05826','323ce08e703422b77c858c64a9b28a624477928154e3628f5792953663763d59','{"spiffe_id": "spiffe://example.org/agent/triage", "parent_id": "spiffe://example.org/spire/agent/sojourn/here", "selectors": ["unix:uid:0"], "dns_names": [], "federates_with": [], "x509_svid_ttl": 1800, "jwt_svid_ttl": 0, "hint": "main", "admin": false, "downstream": false, "store_svid": false, "disable_x509_svid_prefetch": false, "jwt_svid_include_jti": false, "expires_at": 0, "revision": 0, "created_at": 1795623976}');
INSERT INTO "entries" VALUES('1a52375c-9f81-488c-b817-e69afdf1d630','8b81cb9d723a20bd078c1fd356a42c0158532d31cde59b31275f68137bf2fe45','{"spiffe_id": "spiffe://example.org/web", "parent_id": "spiffe://example.org/spire/agent/sojourn/here", "selectors": ["unix:path:/usr/sbin/nginx", "unix:user:www-data"], "dns_names": ["web.example.org"], "federates_with": [], "x509_svid_ttl": 0, "jwt_svid_ttl": 0, "hint": "", "admin": false, "downstream": false, "store_svid": false, "disable_x509_svid_prefetch": false, "jwt_svid_include_jti": false, "expires_at": 0, "revision": 0, "created_at": 1795623976}');
CREATE TABLE settings (
	name VARCHAR(64) NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "settings" VALUES('epoch','1');
INSERT INTO "settings" VALUES('audit_head','4 ed9d918e8cf9eacad6380707071a141a261c11b55f17f6b897f2a3c04be9906e');
CREATE TABLE tasks (
	id VARCHAR(64) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	version BIGINT NOT NULL, 
	boot_id VARCHAR(64) NOT NULL, 
	document TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "tasks" VALUES('tsk_sgS7Vlk7uxuL61jBCxkvVw','active',4294967297,'ffa57b2e-a433-46e8-b42a-9f6e29f4ad10','{"type": "triage-ticket", "type_digest": "eec53ad3594ba37438146386a70a2cce7c405cbbb991f1661dcf6a5331134b4f", "spiffe_id": "spiffe://example.org/agent/triage", "entry_id": "0e46abfe-8c28-42fe-84f5-8adfc5f05826", "uid": 0, "grants": [{"resource": "https://tickets.example.org", "actions": ["ticket:read"]}], "params": {}, "created_at": 1795623977.328286, "expires_at": 1795624877.328286, "holder": {"pid": 27034, "start_time": 1356272}, "binding": "stream", "session": true, "reason": "", "tokens_issued": 0}');
CREATE INDEX tasks_by_state ON tasks (state);
COMMIT;
