import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Checks of a broker with the Java client: `java JavaClient CHECK BOOTSTRAP PREFIX`; every name starts with PREFIX. */
public final class JavaClient {
    private final String bootstrap;
    private final String prefix;

    private JavaClient(String bootstrap, String prefix) {
        this.bootstrap = bootstrap;
        this.prefix = prefix;
    }

    public static void main(String[] arguments) throws Exception {
        JavaClient client = new JavaClient(arguments[1], arguments[2]);
        switch (arguments[0]) {
            case "administersTopics" -> client.administersTopics();
            case "producesAndConsumesEveryCodec" -> client.producesAndConsumesEveryCodec();
            case "sharesAGroup" -> client.sharesAGroup();
            case "commitsAndAbortsTransactions" -> client.commitsAndAbortsTransactions();
            case "commitsOffsetsInTransactions" -> client.commitsOffsetsInTransactions(false);
            case "commitsOffsetsOfAMemberInTransactions" -> client.commitsOffsetsInTransactions(true);
            default -> throw new IllegalArgumentException(arguments[0]);
        }
        System.exit(0);
    }

    private void administersTopics() throws Exception {
        try (Admin admin = admin()) {
            String topic = create(admin, "admin", 3);
            expect(admin.listTopics().names().get().contains(topic), "the topic is not listed");
            int partitions = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size();
            expect(partitions == 3, "it has " + partitions + " partitions");
            expect(!admin.describeCluster().nodes().get().isEmpty(), "the cluster has no nodes");
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all().get();
            ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            var configs = admin.describeConfigs(List.of(resource)).all().get().get(resource);
            expect(configs.get("retention.ms") != null, "no retention.ms is described");
            admin.deleteTopics(List.of(topic)).all().get();
            until(() -> !names(admin).contains(topic), "the deleted topic is still listed");
        }
    }

    private void producesAndConsumesEveryCodec() throws Exception {
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            String topic = create(codec, 1);
            try (KafkaProducer<String, String> producer = producer(Map.of("compression.type", codec, "linger.ms", "5"))) {
                List<Future<RecordMetadata>> sent = new ArrayList<>();
                for (int n = 0; n < 500; n++) {
                    ProducerRecord<String, String> record = new ProducerRecord<>(topic, 0, "key-" + n, "value " + n);
                    record.headers().add("number", Integer.toString(n).getBytes());
                    sent.add(producer.send(record));
                }
                for (int n = 0; n < 500; n++) {
                    expect(sent.get(n).get(20, TimeUnit.SECONDS).offset() == n, "record " + n + " has another offset");
                }
            }
            List<ConsumerRecord<String, String>> records = read(topic, 500, "read_uncommitted");
            for (int n = 0; n < 500; n++) {
                ConsumerRecord<String, String> record = records.get(n);
                expect(record.key().equals("key-" + n) && record.value().equals("value " + n), codec + " spoilt record " + n);
                expect(new String(record.headers().lastHeader("number").value()).equals("" + n), codec + " lost a header");
            }
        }
    }

    private void sharesAGroup() throws Exception {
        String topic = create("shared", 4);
        try (KafkaProducer<String, String> producer = producer(Map.of())) {
            for (int n = 0; n < 40; n++) {
                producer.send(new ProducerRecord<>(topic, n % 4, null, "" + n)).get(20, TimeUnit.SECONDS);
            }
        }
        KafkaConsumer<String, String> first = member("group");
        first.subscribe(List.of(topic));
        Set<String> seen = new HashSet<>();
        until(() -> poll(first, seen) && first.assignment().size() == 4 && seen.size() == 40, "the first has not got all");
        first.commitSync();
        KafkaConsumer<String, String> second = member("group");
        second.subscribe(List.of(topic));
        Set<String> again = new HashSet<>();
        until(
            () -> poll(first, again) && poll(second, again) && first.assignment().size() == 2 && second.assignment().size() == 2,
            "the partitions are not split 2/2");
        second.close();
        until(() -> poll(first, again) && first.assignment().size() == 4, "the first has not got all back");
        expect(again.isEmpty(), "committed records came again: " + again);
        first.close();
    }

    private void commitsAndAbortsTransactions() throws Exception {
        String topic = create("transactional", 1);
        try (KafkaProducer<String, String> producer = producer(Map.of("transactional.id", prefix))) {
            producer.initTransactions();
            for (List<String> values : List.of(List.of("a", "b"), List.of("x"), List.of("c"))) {
                producer.beginTransaction();
                for (String value : values) {
                    producer.send(new ProducerRecord<>(topic, 0, null, value));
                }
                if (values.contains("x")) {
                    producer.flush();
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                }
            }
        }
        expect(values(read(topic, 3, "read_committed")).equals(List.of("a", "b", "c")), "not what was committed");
        expect(values(read(topic, 4, "read_uncommitted")).equals(List.of("a", "b", "x", "c")), "not what was written");
    }

    private void commitsOffsetsInTransactions(boolean withMember) throws Exception {
        String topic = create("source", 1);
        TopicPartition partition = new TopicPartition(topic, 0);
        try (KafkaProducer<String, String> plain = producer(Map.of())) {
            for (int n = 0; n < 10; n++) {
                plain.send(new ProducerRecord<>(topic, 0, null, "" + n)).get(20, TimeUnit.SECONDS);
            }
        }
        try (KafkaConsumer<String, String> consumer = member("reader");
            KafkaProducer<String, String> producer = producer(Map.of("transactional.id", prefix))) {
            consumer.subscribe(List.of(topic));
            Set<String> seen = new HashSet<>();
            until(() -> poll(consumer, seen) && seen.size() == 10, "not all was read");
            producer.initTransactions();
            Map<TopicPartition, OffsetAndMetadata> reached = Map.of(partition, new OffsetAndMetadata(10));
            ConsumerGroupMetadata group = withMember ? consumer.groupMetadata() : groupOnly(consumer);
            producer.beginTransaction();
            producer.sendOffsetsToTransaction(reached, group);
            producer.abortTransaction();
            expect(consumer.committed(Set.of(partition)).get(partition) == null, "offsets of an aborted transaction show");
            producer.beginTransaction();
            producer.sendOffsetsToTransaction(reached, group);
            producer.commitTransaction();
            expect(consumer.committed(Set.of(partition)).get(partition).offset() == 10, "the offset was not committed");
        }
    }

    /** The group's name without the member's id and generation: what brokers before 2.5 understand. */
    @SuppressWarnings("deprecation")
    private static ConsumerGroupMetadata groupOnly(KafkaConsumer<String, String> consumer) {
        return new ConsumerGroupMetadata(consumer.groupMetadata().groupId());
    }

    private Admin admin() {
        return Admin.create(Map.of("bootstrap.servers", bootstrap));
    }

    private String create(String stem, int partitions) throws Exception {
        try (Admin admin = admin()) {
            return create(admin, stem, partitions);
        }
    }

    private String create(Admin admin, String stem, int partitions) throws Exception {
        String topic = prefix + "-" + stem;
        admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get(20, TimeUnit.SECONDS);
        return topic;
    }

    private KafkaProducer<String, String> producer(Map<String, Object> settings) {
        Map<String, Object> all = new HashMap<>(settings);
        all.put("bootstrap.servers", bootstrap);
        return new KafkaProducer<>(all, new StringSerializer(), new StringSerializer());
    }

    private KafkaConsumer<String, String> member(String group) {
        return consumer(Map.of("group.id", prefix + "-" + group));
    }

    private KafkaConsumer<String, String> consumer(Map<String, Object> settings) {
        Map<String, Object> all = new HashMap<>(settings);
        all.put("bootstrap.servers", bootstrap);
        all.put("auto.offset.reset", "earliest");
        all.put("enable.auto.commit", "false");
        all.put("session.timeout.ms", "6000");
        all.put("heartbeat.interval.ms", "500");
        return new KafkaConsumer<>(all, new StringDeserializer(), new StringDeserializer());
    }

    private List<ConsumerRecord<String, String>> read(String topic, int count, String isolation) {
        List<ConsumerRecord<String, String>> records = new ArrayList<>();
        try (KafkaConsumer<String, String> consumer = consumer(Map.of("isolation.level", isolation))) {
            TopicPartition partition = new TopicPartition(topic, 0);
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            until(() -> {
                consumer.poll(Duration.ofMillis(200)).forEach(records::add);
                return records.size() >= count;
            }, "fewer than " + count + " records");
            consumer.poll(Duration.ofMillis(300)).forEach(records::add);
        }
        expect(records.size() == count, records.size() + " instead of " + count + " records");
        return records;
    }

    private static boolean poll(KafkaConsumer<String, String> consumer, Set<String> seen) {
        consumer.poll(Duration.ofMillis(50)).forEach(record -> seen.add(record.value()));
        return true;
    }

    private static List<String> values(List<ConsumerRecord<String, String>> records) {
        return records.stream().map(ConsumerRecord::value).toList();
    }

    private static Collection<String> names(Admin admin) {
        try {
            return admin.listTopics().names().get();
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }

    private static void until(BooleanSupplier done, String otherwise) {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
        while (!done.getAsBoolean()) {
            expect(System.nanoTime() < deadline, otherwise + " (after 20 s)");
        }
    }

    private static void expect(boolean holds, String otherwise) {
        if (!holds) {
            throw new AssertionError(otherwise);
        }
    }
}
