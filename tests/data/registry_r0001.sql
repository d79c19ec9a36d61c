BEGIN TRANSACTION;
CREATE TABLE audit (
	entry_id INTEGER NOT NULL, 
	time_s FLOAT NOT NULL, 
	action VARCHAR(32) NOT NULL, 
	actor VARCHAR(200) NOT NULL, 
	model VARCHAR(64) NOT NULL, 
	version VARCHAR(64) NOT NULL, 
	from_value VARCHAR(200) NOT NULL, 
	to_value VARCHAR(200) NOT NULL, 
	detail TEXT NOT NULL, 
	"key" VARCHAR(200), 
	PRIMARY KEY (entry_id), 
	UNIQUE ("key")
);
INSERT INTO "audit" VALUES(1,1750000000.0,'create_model','sre','faq-bot','','','','',NULL);
INSERT INTO "audit" VALUES(2,1750000000.0,'create_version','guard','faq-bot','v1.2.0','','None','',NULL);
INSERT INTO "audit" VALUES(3,1750000000.0,'transition','guard','faq-bot','v1.2.0','None','Staging','','staged-v1.2.0');
INSERT INTO "audit" VALUES(4,1750000000.0,'create_version','guard','faq-bot','v1.2.1','','None','',NULL);
INSERT INTO "audit" VALUES(5,1750000000.0,'transition','guard','faq-bot','v1.2.1','None','Staging','','staged-v1.2.1');
INSERT INTO "audit" VALUES(6,1750000000.0,'promote','guard','faq-bot','v1.2.0','Staging','Production','',NULL);
INSERT INTO "audit" VALUES(7,1750000000.0,'control','ann','faq-bot','v1.2.1','epoch 0','epoch 1','canary_ratio=0.1 phase=rolling_out incident=',NULL);
CREATE TABLE control (
	service VARCHAR(64) NOT NULL, 
	epoch BIGINT NOT NULL, 
	stable VARCHAR(64) NOT NULL, 
	canary VARCHAR(64) NOT NULL, 
	previous VARCHAR(64) NOT NULL, 
	canary_ratio FLOAT NOT NULL, 
	stage INTEGER NOT NULL, 
	"plan" TEXT NOT NULL, 
	advance VARCHAR(16) NOT NULL, 
	phase VARCHAR(16) NOT NULL, 
	cache_epoch BIGINT NOT NULL, 
	incident_id VARCHAR(64) NOT NULL, 
	outbox_id VARCHAR(64) NOT NULL, 
	mode VARCHAR(16) NOT NULL, 
	PRIMARY KEY (service)
);
INSERT INTO "control" VALUES('faq-bot',1,'v1.2.0','v1.2.1','',0.1,0,'','manual','rolling_out',0,'','','recommend');
CREATE TABLE models (
	name VARCHAR(64) NOT NULL, 
	owner VARCHAR(200) NOT NULL, 
	description TEXT NOT NULL, 
	created_s FLOAT NOT NULL, 
	fence_epoch BIGINT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "models" VALUES('faq-bot','sre','answers',1750000000.0,3);
CREATE TABLE reserve (room BLOB);
CREATE TABLE versions (
	model VARCHAR(64) NOT NULL, 
	version VARCHAR(64) NOT NULL, 
	stage VARCHAR(16) NOT NULL, 
	artifact_url TEXT NOT NULL, 
	description TEXT NOT NULL, 
	tags JSON NOT NULL, 
	meta JSON NOT NULL, 
	created_s FLOAT NOT NULL, 
	PRIMARY KEY (model, version), 
	FOREIGN KEY(model) REFERENCES models (name)
);
INSERT INTO "versions" VALUES('faq-bot','v1.2.0','Production','','','["release"]','{"artifact_type": "Release", "kb": "v1.2.0"}',1750000000.0);
INSERT INTO "versions" VALUES('faq-bot','v1.2.1','Staging','','','["release"]','{"artifact_type": "Release", "kb": "v1.2.1"}',1750000000.0);
CREATE UNIQUE INDEX one_production_per_model ON versions (model) WHERE stage = 'Production';
COMMIT;
